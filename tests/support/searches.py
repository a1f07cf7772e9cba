"""Changes that come while a claimer searches."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from eventjobs.service import Service


def during_a_search(
    service: Service, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Awaitable[object]]
) -> asyncio.Event:
    """Make *change* once, as soon as a search has selected from what is due. The search goes on
    when the views show the change, and then the event is set.
    """
    due_times, done, changes = service.claims.due_times, asyncio.Event(), [change]
    find_not_due = due_times.find_not_due

    async def find_late(job_ids: Iterable[str]) -> set[str]:
        not_due = await find_not_due(job_ids)
        if changes:
            await changes.pop()()
            await service.views.wait_for_position(service.log.head)
            done.set()
        return not_due

    monkeypatch.setattr(due_times, "find_not_due", find_late)
    return done
