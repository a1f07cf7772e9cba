"""Pausing and resuming types, queues and schedules. Each has a stream of its own in the log."""

from collections.abc import Callable
from functools import reduce
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

from eventjobs.errors import WrongState
from eventjobs.events import Paused, Recorded, Resumed
from eventjobs.log import EventLog
from eventjobs.turns import Turns

#: Where the ids of their streams live.
SWITCHES = UUID("0b9d4f1e-52c7-5e0a-8c7d-7f9a3f2f6f31")

Kind = Literal["type", "queue", "schedule"]


class Switch(NamedTuple):
    """What the events of one stream add up to."""

    version: int = 0
    paused: bool = False
    #: Since when it is as it is; 0 when nobody has touched it.
    since_us: int = 0


def evolve(switch: Switch, recorded: Recorded) -> Switch:
    return Switch(recorded.version, isinstance(recorded.event, Paused), recorded.at_us)


def pause(switch: Switch, kind: Kind, name: str, reason: str | None) -> Paused | None:
    """Paused already, it stays as it is: since when, by whom, and why."""
    return None if switch.paused else Paused(kind, name, reason)


def resume(switch: Switch, kind: Kind, name: str) -> Resumed | None:
    return Resumed(kind, name) if switch.paused else None


def stream_of(kind: Kind, name: str) -> str:
    """The id under which its events are in the log."""
    return str(uuid5(SWITCHES, f"{kind}\0{name}"))


class Switches:
    """The write side: load, decide, append. What is paused is answered by the views.

    Raises WrongState where somebody gave the id of such a stream to a job.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._turns = Turns()

    async def pause(self, kind: Kind, name: str, reason: str | None = None, *, actor: str) -> int:
        """Start no more of these; what runs goes on. The position from which that is so.

        What is being claimed at this very moment may still start. Raises LogError.
        """
        return await self._switch(kind, name, lambda now: pause(now, kind, name, reason), actor)

    async def resume(self, kind: Kind, name: str, *, actor: str) -> int:
        """Start them again. The position from which that is so. Raises LogError."""
        return await self._switch(kind, name, lambda now: resume(now, kind, name), actor)

    async def now(self, kind: Kind, name: str) -> Switch:
        """How it is, by the log; a job that was given the id of its stream pauses nothing."""
        events = await self._log.read_job(stream_of(kind, name))
        ours = [each for each in events if isinstance(each.event, Paused | Resumed)]
        return reduce(evolve, ours, Switch())

    async def _switch(
        self, kind: Kind, name: str, decide: Callable[[Switch], Paused | Resumed | None], actor: str
    ) -> int:
        stream = stream_of(kind, name)
        await self._turns.enter(stream)  # nobody else writes it, so there is no Conflict
        try:
            events = await self._log.read_job(stream)
            if events and not isinstance(events[0].event, Paused):
                raise WrongState(f"a job was given the id {stream}, which is that of this {kind}")
            switch = reduce(evolve, events, Switch())
            event = decide(switch)
            if event is None:
                return events[-1].position if events else self._log.head
            return (await self._log.append(stream, switch.version, event, actor=actor)).position
        finally:
            self._turns.leave(stream)
