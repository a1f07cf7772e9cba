"""Folds a batch of events into changes of jobs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from eventjobs.domain.events import SERVICE_EVENTS, JobImported, JobSubmitted, Unreadable
from eventjobs.domain.job import Job, evolve, park
from eventjobs.domain.recorded import Recorded
from eventjobs.projections.attempt_progress import Progress, advance
from eventjobs.projections.change import JobChange
from eventjobs.projections.parked_events import ParkedEvent
from eventjobs.projections.pauses import Pause
from eventjobs.projections.queue import MovedJob

FoldedJob = tuple[Job, Progress | None]


class Folded(NamedTuple):
    """The changes by a batch, before they are in the views file."""

    changes: list[JobChange]
    #: by kind and name: what was paused; None for what was resumed
    pauses: Mapping[tuple[str, str], Pause | None] = MappingProxyType({})


class Written(NamedTuple):
    """The changes between two positions of the views file."""

    changes: Collection[JobChange] = ()
    #: the events that were left out
    parked: Sequence[ParkedEvent] = ()
    #: the queued jobs whose relatives have changed, as they are now
    moved: Sequence[MovedJob] = ()


def events_of_jobs(batch: Sequence[Recorded]) -> list[Recorded]:
    """The events of *batch* that may be about jobs.

    A stream of the service's own is no job, but such an event may be in a job's by mistake.
    """
    return [
        recorded
        for recorded in batch
        if recorded.event.__class__ not in SERVICE_EVENTS or recorded.version > 1
    ]


class Fold:
    """The changes of jobs by a batch of events, which are folded part by part, in order."""

    def __init__(self, jobs: Mapping[str, FoldedJob]) -> None:
        """*jobs* are those of the batch that exist before it."""
        self.changes: dict[str, JobChange] = {}
        self.parked: list[ParkedEvent] = []
        self._jobs = jobs

    def add(self, events: Iterable[Recorded], refused: str | None = None) -> None:
        """Fold *events*, the next of the batch. With *refused*, the only one is parked."""
        changes, parked = self.changes, self.parked
        for recorded in events:
            job_id = recorded.job_id
            if recorded.event.__class__ is Unreadable:
                parked.append(parked_event(recorded, recorded.event.why))
            change = changes.get(job_id)
            if change is None:
                before, progress = self._jobs.get(job_id) or (None, None)
                if before is None and not _begins_job(recorded, refused):
                    continue  # a stream that is no job, or whose first event cannot be read
                change = JobChange(before, before, progress, progress)  # type: ignore[arg-type]
                changes[job_id] = change
            job = change.after
            if refused is None or job.parked is not None:
                change.after = after = evolve(job, recorded)
            else:
                change.after = after = park(job, recorded, refused)
            if after.parked is None:
                change.progress = advance(change.progress, recorded)
            elif job.parked is None and recorded.event.__class__ is not Unreadable:
                parked.append(parked_event(recorded, after.parked["why"]))
            change.events.append(recorded)
            change.size += recorded.size


def parked_event(recorded: Recorded, why: str) -> ParkedEvent:
    return ParkedEvent(recorded.position, recorded.job_id, recorded.type, why)


def _begins_job(recorded: Recorded, refused: str | None) -> bool:
    begins = recorded.event.__class__ in (JobSubmitted, JobImported)
    return refused is None and begins and recorded.version == 1
