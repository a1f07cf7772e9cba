"""Folds a batch of events into changes of jobs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eventjobs.domain.events import SERVICE_EVENTS, JobImported, JobSubmitted, Unreadable
from eventjobs.domain.job import Job, evolve, park
from eventjobs.domain.recorded import Recorded
from eventjobs.projections.attempt_progress import Progress, advance
from eventjobs.projections.change import JobChange
from eventjobs.projections.parked_events import ParkedEvent

FoldedJob = tuple[Job, Progress | None]


class Applied(NamedTuple):
    """The changes of jobs by a batch, and its events that were left out."""

    changes: list[JobChange]
    parked: list[ParkedEvent]


def events_of_jobs(batch: Sequence[Recorded]) -> list[Recorded]:
    """The events of *batch* that may be about jobs.

    A stream of the service's own is no job, but such an event may be in a job's by mistake.
    """
    return [
        recorded
        for recorded in batch
        if recorded.event.__class__ not in SERVICE_EVENTS or recorded.version > 1
    ]


def fold(
    events: Sequence[Recorded], jobs: Mapping[str, FoldedJob], refused: str | None = None
) -> Applied:
    """The changes by *events* of *jobs*, the ones that exist before them.

    With *refused*, the only event is parked for that reason.
    """
    changes: dict[str, JobChange] = {}
    parked: list[ParkedEvent] = []
    for recorded in events:
        job_id = recorded.job_id
        if recorded.event.__class__ is Unreadable:
            parked.append(parked_event(recorded, recorded.event.why))
        change = changes.get(job_id)
        if change is None:
            before, progress = jobs.get(job_id) or (None, None)
            if before is None and not _begins_job(recorded, refused):
                continue  # a stream that is no job, or whose first event cannot be read
            change = JobChange(before, before, progress, progress)  # type: ignore[arg-type]
            changes[job_id] = change
        previous, change.after = change.after, _evolved_job(change.after, recorded, refused)
        if change.after.parked is None:
            change.progress = advance(change.progress, recorded)
        elif previous.parked is None and recorded.event.__class__ is not Unreadable:
            parked.append(parked_event(recorded, change.after.parked["why"]))
        change.events.append(recorded)
    return Applied(list(changes.values()), parked)


def parked_event(recorded: Recorded, why: str) -> ParkedEvent:
    return ParkedEvent(recorded.position, recorded.job_id, recorded.type, why)


def _begins_job(recorded: Recorded, refused: str | None) -> bool:
    begins = recorded.event.__class__ in (JobSubmitted, JobImported)
    return refused is None and begins and recorded.version == 1


def _evolved_job(job: Job, recorded: Recorded, refused: str | None) -> Job:
    if refused is None or job.parked is not None:
        return evolve(job, recorded)
    return park(job, recorded, refused)
