"""Circuit breakers: the state of each in the log, and the failures this process counts."""

from typing import Any

from aiohttp import web

from eventjobs.http.app_context import AppContext
from eventjobs.http.lists import page
from eventjobs.http.render import time_or_none
from eventjobs.http.requests import views_caught_up
from eventjobs.projections.breakers import LastBreakerChange


async def breakers(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Circuit breakers by name: whether calls are rejected, until when, and by which job."""
    service = context.service
    await views_caught_up(service)
    position = service.views.position
    seen = {each.name: each for each in await service.views.breakers()}
    failures = service.breakers.failures()
    now_us = service.clock.now_us()
    breakers = [
        _state(name, seen.get(name), now_us) | _failures(name, failures)
        for name in sorted(seen.keys() | failures.keys())
    ]
    return page(context, request, "breakers", "name", breakers, position=position)


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


def _failures(name: str, counts: dict[str, tuple[int, Any]]) -> dict[str, Any]:
    failures, config = counts.get(name, (0, None))
    return {
        "failures": failures,
        "threshold": config and config.threshold,
        "window_s": config and config.window_s,
        "cooldown_s": config and config.cooldown_s,
    }
