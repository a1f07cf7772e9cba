"""Pausing and resuming types, queues and schedules. Each has a stream of its own in the log."""

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
    """What the events of one stream add up to."""

    version: int = 0
    paused: bool = False
    #: Since when it is as it is; 0 when nobody has touched it.
    since_us: int = 0


def evolve(switch: PauseState, recorded: Recorded) -> PauseState:
    return PauseState(recorded.version, isinstance(recorded.event, Paused), recorded.at_us)


def pause(switch: PauseState, kind: Kind, name: str, reason: str | None) -> Paused | None:
    """Paused already, it stays as it is: since when, by whom, and why."""
    return None if switch.paused else Paused(kind, name, reason)


def resume(switch: PauseState, kind: Kind, name: str) -> Resumed | None:
    return Resumed(kind, name) if switch.paused else None


class Pauses:
    """The write side: load, decide, append. What is paused is answered by the views."""

    def __init__(self, log: EventLog, views: Views, pauses_max: int) -> None:
        self._log = log
        self._views = views
        self._pauses_max = pauses_max
        self._count_lock = asyncio.Lock()
        self._locks = KeyedLock()

    async def pause(self, kind: Kind, name: str, reason: str | None = None, *, actor: str) -> int:
        """Start no more of these; what runs goes on. The position from which that is so.

        What is being claimed at this very moment may still start. Raises InvalidInput, LogError,
        and LimitReached when as many are paused as may be.
        """
        reason = read_reason(reason, "reason")
        (read_queue_name if read_kind(kind, "kind") == "queue" else read_name)(name, "name")
        async with self._count_lock:
            if not (await self.state(kind, name)).paused:
                await self._check_count()
            return await self._append(kind, name, lambda now: pause(now, kind, name, reason), actor)

    async def _check_count(self) -> None:
        """By the views as they are: a pause must not wait for views that are late."""
        if len(await self._views.query(SELECT_PAUSES)) >= self._pauses_max:
            raise LimitReached(f"{self._pauses_max} are paused, and no more may be; resume some")

    async def resume(self, kind: Kind, name: str, *, actor: str) -> int:
        """Start them again. The position from which that is so. Raises LogError."""
        return await self._append(kind, name, lambda now: resume(now, kind, name), actor)

    async def state(self, kind: Kind, name: str) -> PauseState:
        """How it is, by the log."""
        return reduce(evolve, (await self._read_stream(kind, name))[1], PauseState())

    async def _read_stream(self, kind: Kind, name: str) -> tuple[str, list[Recorded]]:
        """The id of its stream, and what is in it. One that was begun under its legacy id stays."""
        stream = switch_id(kind, name)
        events = await self._log.read_job(stream)
        if not events and self._log.reserved_after:
            legacy = legacy_switch_id(kind, name)
            earlier = await self._log.read_job(legacy)
            if earlier and isinstance(earlier[0].event, Paused):  # and no job of a client
                return legacy, earlier
        return stream, events

    async def _append(
        self,
        kind: Kind,
        name: str,
        decide: Callable[[PauseState], Paused | Resumed | None],
        actor: str,
    ) -> int:
        turn = switch_id(read_kind(kind, "kind"), read_name(name, "name"))
        await self._locks.acquire(turn)  # nobody else writes its stream, so there is no Conflict
        try:
            stream, events = await self._read_stream(kind, name)
            switch = reduce(evolve, events, PauseState())
            event = decide(switch)
            if event is None:
                return events[-1].position if events else self._log.head
            return (await self._log.append(stream, switch.version, event, actor=actor)).position
        finally:
            self._locks.release(turn)
