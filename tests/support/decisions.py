"""Decisions as sentences: given these events, when this is decided, then that event.

given(submitted, started).when(complete, 1, "result").then(JobCompleted(1, "result"))
given(submitted).when(submit, spec).then_nothing()
given().when(cancel).refused(JobNotFound)
"""

from collections.abc import Callable

from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event
from eventjobs.domain.job import Job, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Rejected

JOB_ID = "00000000-0000-4000-8000-000000000001"


def as_recorded(*events: Event) -> list[Recorded]:
    """*events* as the first ones of a log, of one job; the n-th happened at second n."""
    return [
        Recorded(n, JOB_ID, n, n * 1_000_000, "tester", event, *encode(event))
        for n, event in enumerate(events, start=1)
    ]


def given(*events: Event) -> "Given":
    return Given(fold(as_recorded(*events)))


class Given:
    def __init__(self, job: Job | None) -> None:
        self.job = job

    def when(
        self, decision: Callable[..., Event | None], *args: object, **kwargs: object
    ) -> "Outcome":
        try:
            return Outcome(decision(self.job, *args, **kwargs))
        except Rejected as refusal:
            return Outcome(refusal)


class Outcome:
    def __init__(self, outcome: Event | Rejected | None) -> None:
        self._outcome = outcome

    def then(self, event: Event) -> None:
        """The decision made exactly *event*."""
        assert self._outcome == event

    def then_nothing(self) -> None:
        """The decision made no event."""
        assert self._outcome is None

    def refused(self, error: type[Rejected]) -> None:
        """The decision raised *error* itself, not one of its kind."""
        assert type(self._outcome) is error, f"not refused with {error.__name__}: {self._outcome!r}"
