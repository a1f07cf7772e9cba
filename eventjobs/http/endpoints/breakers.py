"""The circuit breakers: what the log says of each, and what this process counts."""

from typing import Any

from aiohttp import web

from eventjobs.http.app_context import AppContext
from eventjobs.http.lists import page
from eventjobs.http.render import time_or_none
from eventjobs.http.requests import views_caught_up
from eventjobs.projections.breakers import LastBreakerChange


async def breakers(site: AppContext, request: web.Request) -> web.StreamResponse:
    """What is not called for now because it failed, until when, and which job found out."""
    service = site.service
    await views_caught_up(service)
    position = service.views.position
    seen = {each.name: each for each in await service.views.breakers()}
    counted = service.breakers.failures()
    now_us = service.clock.now_us()
    told = [
        _state(name, seen.get(name), now_us) | _counted(name, counted)
        for name in sorted(seen.keys() | counted.keys())
    ]
    return page(site, request, "breakers", "name", told, position=position)


def _state(name: str, seen: LastBreakerChange | None, now_us: int) -> dict[str, Any]:
    if seen is None:
        seen = LastBreakerChange(name, "closed", None, 0, None, None)
    state, until_us = seen.state, seen.until_us
    if until_us is not None and until_us <= now_us:
        state = "half_open"
    return {
        "name": name,
        "state": state,
        "opened_at": time_or_none(seen.changed_us if until_us else None),
        "open_until": time_or_none(until_us),
        "changed_at": time_or_none(seen.changed_us),
        "job_id": seen.job_id,
    }


def _counted(name: str, counted: dict[str, tuple[int, Any]]) -> dict[str, Any]:
    failures, limits = counted.get(name, (0, None))
    return {
        "failures": failures,
        "threshold": limits and limits.threshold,
        "window_s": limits and limits.window_s,
        "cooldown_s": limits and limits.cooldown_s,
    }
