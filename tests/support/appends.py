"""What tests do at each append of a log: they refuse it, delay it, or lose its answer."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict
from eventjobs.log import EventLog, NewEvent

#: May raise in place of the append, or of its answer.
AtAppend = Callable[[NewEvent], Awaitable[object]]


async def _nothing(event: NewEvent) -> None:
    pass


def at_each_append(
    monkeypatch: pytest.MonkeyPatch,
    log: EventLog,
    *,
    before: AtAppend = _nothing,
    after: AtAppend = _nothing,
) -> None:
    """Await *before* and *after* for each event that *log* appends."""
    append_many = log.append_many

    async def append(events: Sequence[NewEvent]) -> list[Recorded | Conflict]:
        for each in events:
            await before(each)
        outcomes = await append_many(events)
        for each in events:
            await after(each)
        return outcomes

    monkeypatch.setattr(log, "append_many", append)


def appends_of(monkeypatch: pytest.MonkeyPatch, log: EventLog) -> list[list[str]]:
    """The classes of the events of each append from now on."""
    append_many, appends = log.append_many, list[list[str]]()

    async def append(events: Sequence[NewEvent]) -> list[Recorded | Conflict]:
        appends.append([type(each.event).__name__ for each in events])
        return await append_many(events)

    monkeypatch.setattr(log, "append_many", append)
    return appends
