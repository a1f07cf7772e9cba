"""Pausing and resuming types, queues and schedules. Each has its own stream in the log."""

import asyncio
from collections.abc import Callable
from functools import reduce
from typing import Literal, NamedTuple

from eventjobs.concurrency.keyed_lock import KeyedLock
from eventjobs.domain.events import Paused, Resumed
from eventjobs.domain.ids import legacy_switch_id, switch_id
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.validation import make_reader, read_name, read_queue_name, read_reason
from eventjobs.errors import LimitReached
from eventjobs.log import EventLog
from eventjobs.projections import Views
from eventjobs.projections.pauses import SELECT_PAUSES

Kind = Literal["type", "queue", "schedule"]
read_kind = make_reader(Kind)


class PauseState(NamedTuple):
    """The state of a type, queue or schedule after the events of its stream."""

    version: int = 0
    paused: bool = False
    #: The time of the newest event; 0 without events.
    since_us: int = 0


def evolve(state: PauseState, recorded: Recorded) -> PauseState:
    return PauseState(recorded.version, isinstance(recorded.event, Paused), recorded.at_us)


def pause(state: PauseState, kind: Kind, name: str, reason: str | None) -> Paused | None:
    """The event of a pause; None when it is paused, which keeps the earlier time and reason."""
    return None if state.paused else Paused(kind, name, reason)


def resume(state: PauseState, kind: Kind, name: str) -> Resumed | None:
    return Resumed(kind, name) if state.paused else None


class Pauses:
    """The write side of pauses. The view `pauses` lists what is paused."""

    def __init__(self, log: EventLog, views: Views, pauses_max: int) -> None:
        self._log = log
        self._views = views
        self._pauses_max = pauses_max
        self._count_lock = asyncio.Lock()
        self._locks = KeyedLock()

    async def pause(self, kind: Kind, name: str, reason: str | None = None, *, actor: str) -> int:
        """Start no more jobs of this type, queue or schedule. Returns the position of the event.

        Running jobs go on, and a job that is just being claimed may still start. Raises
        InvalidInput, LogError, and LimitReached when the largest number is paused.
        """
        reason = read_reason(reason, "reason")
        (read_queue_name if read_kind(kind, "kind") == "queue" else read_name)(name, "name")
        async with self._count_lock:
            if not (await self.state(kind, name)).paused:
                await self._check_count()
            return await self._append(kind, name, lambda now: pause(now, kind, name, reason), actor)

    async def _check_count(self) -> None:
        """Raises LimitReached. Views that lag are read as they are: a pause must not wait."""
        if len(await self._views.query(SELECT_PAUSES)) >= self._pauses_max:
            raise LimitReached(f"{self._pauses_max} are paused, the largest number; resume some")

    async def resume(self, kind: Kind, name: str, *, actor: str) -> int:
        """Start such jobs again. Returns the position of the event. Raises LogError."""
        return await self._append(kind, name, lambda now: resume(now, kind, name), actor)

    async def state(self, kind: Kind, name: str) -> PauseState:
        """The state of a type, queue or schedule, from the log."""
        return reduce(evolve, (await self._read_stream(kind, name))[1], PauseState())

    async def _read_stream(self, kind: Kind, name: str) -> tuple[str, list[Recorded]]:
        """The id of its stream and the stream's events. An existing stream keeps its legacy id."""
        stream = switch_id(kind, name)
        events = await self._log.read_job(stream)
        if not events and self._log.reserved_after:
            legacy = legacy_switch_id(kind, name)
            legacy_events = await self._log.read_job(legacy)
            # A client's job can have this id.
            if legacy_events and isinstance(legacy_events[0].event, Paused):
                return legacy, legacy_events
        return stream, events

    async def _append(
        self,
        kind: Kind,
        name: str,
        decide: Callable[[PauseState], Paused | Resumed | None],
        actor: str,
    ) -> int:
        key = switch_id(read_kind(kind, "kind"), read_name(name, "name"))
        await self._locks.acquire(key)  # only this method appends to the stream: no Conflict
        try:
            stream, events = await self._read_stream(kind, name)
            state = reduce(evolve, events, PauseState())
            event = decide(state)
            if event is None:
                return events[-1].position if events else self._log.head
            return (await self._log.append(stream, state.version, event, actor=actor)).position
        finally:
            self._locks.release(key)
