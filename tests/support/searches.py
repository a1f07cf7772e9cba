"""Changes that come while a claimer searches."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventjobs.service import Service


def during_a_search(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    type: str,
    change: Callable[[], Awaitable[object]],
) -> asyncio.Event:
    """Make *change* once, as soon as a search for jobs of *type* has read what is due. The search
    goes on when the views show the change, and then the event is set.
    """
    due, done, changes = service.views.due, asyncio.Event(), [change]

    async def stale(now_us: int, types: list[str], *arguments: Any, **more: Any) -> Any:
        page = await due(now_us, types, *arguments, **more)
        if changes and type in types:
            await changes.pop()()
            await service.views.wait_for_position(service.log.head)
            done.set()
        return page

    monkeypatch.setattr(service.views, "due", stale)
    return done
