"""The completed steps of a job, in the order of the handler, and which of them a retry keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

from eventjobs.domain.events import JobRetried, StepCompleted
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import TooManySteps

#: Completed steps of one job. They are part of the job's state, which is written at each change.
STEPS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """A completed step. *position* is that of the event that holds its result."""

    name: str
    position: int
    at_us: int
    attempt: int
    #: index among the steps of that attempt
    number: int


def insert_step(
    steps: Sequence[Step], event: StepCompleted, recorded: Recorded
) -> tuple[Step, ...]:
    """*steps* with the step of *event* inserted in the order of the handler.

    Steps of one attempt are ordered by their numbers, because concurrent steps end in any order.
    Among steps of earlier attempts the number is the index: the handler looked up each of them.
    """
    new = Step(event.name, recorded.position, recorded.at_us, event.attempt, event.number)
    others = [each for each in steps if each.name not in (event.name, event.was)]
    first, last = 0, len(others)
    for index, each in enumerate(others):
        if each.attempt == new.attempt and each.number < new.number:
            first = index + 1
        elif each.attempt == new.attempt:
            last = min(last, index)
    index = min(max(new.number, first), last)
    return (*others[:index], new, *others[index:])


def steps_kept_by(steps: tuple[Step, ...], event: JobRetried) -> tuple[Step, ...]:
    """The steps that a retry does not repeat."""
    if event.restart:
        return ()
    names = [each.name for each in steps]
    return steps[: names.index(event.from_step)] if event.from_step in names else steps


def check_count(steps: Sequence[Step], event: StepCompleted) -> None:
    """Raises TooManySteps if *event* would add a step to STEPS_MAX of them."""
    if len(steps) >= STEPS_MAX and not any(each.name in (event.name, event.was) for each in steps):
        raise TooManySteps(f"a job has at most {STEPS_MAX} steps; put more work into each")
