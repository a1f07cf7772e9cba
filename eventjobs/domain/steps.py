"""The completed steps of a job: which of them need no repeating, and in which order they come."""

from collections.abc import Sequence
from dataclasses import dataclass

from eventjobs.domain.events import JobRetried, StepCompleted
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import TooManySteps

#: Completed steps of one job: they are a part of its state, which is written at each change.
STEPS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """A completed step; *position* is where its result is."""

    name: str
    position: int
    at_us: int
    attempt: int
    #: its place among the steps of that attempt
    number: int


def insert_step(
    steps: Sequence[Step], event: StepCompleted, recorded: Recorded
) -> tuple[Step, ...]:
    """*steps* with one more, where the handler comes to it.

    Those of one attempt are told apart by their numbers: what runs side by side ends in any order.
    Among those of earlier attempts its number is its place, since each of them was asked for.
    """
    new = Step(event.name, recorded.position, recorded.at_us, event.attempt, event.number)
    others = [each for each in steps if each.name not in (event.name, event.was)]
    first, last = 0, len(others)
    for index, each in enumerate(others):
        if each.attempt == new.attempt and each.number < new.number:
            first = index + 1
        elif each.attempt == new.attempt:
            last = min(last, index)
    place = min(max(new.number, first), last)
    return (*others[:place], new, *others[place:])


def steps_kept_by(steps: tuple[Step, ...], event: JobRetried) -> tuple[Step, ...]:
    """Those of *steps* that a retry does not repeat."""
    if event.restart:
        return ()
    names = [each.name for each in steps]
    return steps[: names.index(event.from_step)] if event.from_step in names else steps


def check_count(steps: Sequence[Step], event: StepCompleted) -> None:
    """Raises TooManySteps unless *event* takes the place of one of *steps*, or there is room."""
    if len(steps) >= STEPS_MAX and not any(each.name in (event.name, event.was) for each in steps):
        raise TooManySteps(f"a job has at most {STEPS_MAX} steps; put more work into each")
