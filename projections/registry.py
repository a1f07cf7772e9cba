"""The projections that one views file holds."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from eventjobs.domain.recorded import Recorded
from eventjobs.projections import (
    api_keys,
    breakers,
    dependencies,
    event_pages,
    files,
    hooks,
    parked_events,
    pauses,
    progress,
    queue,
    status,
    webhooks,
)
from eventjobs.projections.change import JobChange, Statement


class Tables(Protocol):
    """Tables of a projection. Files with another VERSION are rebuilt."""

    NAME: str
    VERSION: int
    SCHEMA: str


class Projection(Tables, Protocol):
    """A projection of jobs: *apply* gets the change of each job by a batch of events."""

    def apply(self, changes: Iterable[JobChange], /) -> Iterator[Statement]: ...


class EventProjection(Tables, Protocol):
    """A projection of events about anything: *apply* gets the batch itself, in order."""

    def apply(self, batch: Sequence[Recorded], /) -> Iterator[Statement]: ...


#: In this order: dependencies reads what status and queue have written.
PROJECTIONS: tuple[Projection, ...] = (
    status,
    progress,
    queue,
    dependencies,
    files,
    hooks,
    event_pages,
)
EVENT_PROJECTIONS: tuple[EventProjection, ...] = (webhooks, pauses, breakers, api_keys)


def schema() -> str:
    """The SQL that creates the tables of all projections."""
    return "".join(tables.SCHEMA for tables in _all_tables())


def versions() -> str:
    """The names and versions of all projections, which a views file has to match."""
    return " ".join(f"{tables.NAME}={tables.VERSION}" for tables in _all_tables())


def _all_tables() -> tuple[Tables, ...]:
    return (*PROJECTIONS, *EVENT_PROJECTIONS, parked_events)
