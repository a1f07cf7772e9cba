"""The progress of one attempt: a fold over its progress reports."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    JobCancelled,
    JobCompleted,
    JobImported,
    ProgressReported,
)
from eventjobs.domain.json_fields import as_fragments, fragment_of, json_fields
from eventjobs.domain.recorded import Recorded


class Stage(NamedTuple):
    name: str
    started_us: int
    ended_us: int | None = None


@json_fields("data")
@dataclass(frozen=True)
class Progress:
    """The newest attempt's progress. *fraction* (0 to 1) never decreases within an attempt."""

    fraction: float = 0.0
    stage: str | None = None
    message: str | None = None
    data: Any = None
    reported_us: int = 0
    stages: tuple[Stage, ...] = ()

    def dump(self) -> dict[str, Any]:
        return {
            "fraction": self.fraction,
            "stage": self.stage,
            "message": self.message,
            "data": fragment_of(self, "data"),
            "reported_us": self.reported_us,
            "stages": [tuple(stage) for stage in self.stages],
        }

    @classmethod
    def load(cls, state: dict[str, Any]) -> "Progress":
        stages = tuple(Stage(*fields) for fields in state["stages"])
        return cls(**{**as_fragments(cls, state), "stages": stages})


def advance(progress: Progress | None, recorded: Recorded) -> Progress | None:
    """The progress after one more event; None until the first progress report."""
    event, at_us = recorded.event, recorded.at_us
    if isinstance(event, ProgressReported):
        return _with_report(progress or Progress(), event, at_us)
    if isinstance(event, JobImported):
        return _of_record(event)
    if progress is None:
        return None  # as of most events: few jobs report
    match event:
        case AttemptStarted():
            return Progress(reported_us=at_us)
        case JobCompleted():
            return _with_end(progress, at_us, 1.0)
        case AttemptFailed() | AttemptReleased() | JobCancelled():
            return _with_end(progress, at_us, progress.fraction)
        case _:
            return progress


def _of_record(event: JobImported) -> Progress | None:
    """The progress in the record of another store, which may contain anything there."""
    record = event.record
    if not isinstance(record, dict) or not isinstance(
        percent := record.get("progress"), int | float
    ):
        return None
    stage, message = record.get("stage"), record.get("message")
    return Progress(
        max(0.0, min(percent / 100, 1.0)),
        stage if isinstance(stage, str) else None,
        message if isinstance(message, str) else None,
        reported_us=event.updated_us,
    )


def _with_report(progress: Progress, event: ProgressReported, at_us: int) -> Progress:
    stages = progress.stages
    if event.stage is not None and event.stage != progress.stage:
        stages = (*_close_last(stages, at_us), Stage(event.stage, at_us))
    fraction = event.done / event.total if event.done is not None and event.total else 0.0
    return Progress(
        fraction=max(progress.fraction, min(fraction, 1.0)),
        stage=event.stage or progress.stage,
        message=progress.message if event.message is None else event.message,
        data=fragment_of(event, "data") or fragment_of(progress, "data"),
        reported_us=at_us,
        stages=stages,
    )


def _with_end(progress: Progress, at_us: int, fraction: float) -> Progress:
    return Progress(
        fraction,
        progress.stage,
        progress.message,
        fragment_of(progress, "data"),
        progress.reported_us,
        _close_last(progress.stages, at_us),
    )


def _close_last(stages: tuple[Stage, ...], at_us: int) -> tuple[Stage, ...]:
    if not stages or stages[-1].ended_us is not None:
        return stages
    return (*stages[:-1], stages[-1]._replace(ended_us=at_us))
