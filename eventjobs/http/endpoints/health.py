"""Counts, readiness, liveness, and the rebuild of the views."""

from typing import Any

from aiohttp import web

from eventjobs.auth.policy import sees_all
from eventjobs.errors import InvalidCredential
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.request_errors import NotReady, RequestError
from eventjobs.http.requests import permitted_counts, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.projections import Views
from eventjobs.version import __version__

#: Parked events that readyz lists; it counts all of them.
PARKED_MAX = 10


async def counts(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The number of your jobs by type and status."""
    counts, position = await permitted_counts(context.service, principal_of(request))
    return reply({"counts": counts, "position": position})


async def rebuild(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Build the views anew from the log, beside the live ones; answers when they are in place, and
    show what was in the log before.
    """
    await context.service.views.rebuild()
    await views_caught_up(context.service)
    return reply({"position": context.service.views.position})


async def healthz(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Whether the process lives."""
    return reply({"status": "ok"})


async def readyz(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Whether the service serves, and how far its views are behind the log. The parked events are
    listed for those who may read all jobs.
    """
    service = context.service
    if not service.ready:
        names = ", ".join(service.failing)
        raise NotReady(
            f"failed and restarted, see the log of the service: {names}" if names else None
        )
    head, views = service.log.head, service.views
    unwritable = await service.log.unwritable()
    listed = PARKED_MAX if await _sees_all(context, request) else 0
    return reply(
        {
            "ready": True,
            "version": __version__,
            "log_position": head,
            "views_position": views.position,
            "lag": max(0, head - views.position),
            "running": sum(each.running for each in service.runners),
            "writable": unwritable is None,
            "unwritable": unwritable,
            "views_failing": views.failing,
            "recovered": service.recovered,
            "parked": await _parked_events(views, listed),
        }
    )


async def _sees_all(context: AppContext, request: web.Request) -> bool:
    """Whether the request, on a public route, is by a principal that may read all jobs."""
    try:
        return sees_all(await context.authenticator.authenticate(request))
    except (InvalidCredential, RequestError):
        return False


async def _parked_events(views: Views, limit: int) -> dict[str, Any] | None:
    """The number of events that cannot be applied, and the first of them; None while the views are
    failing.
    """
    if views.failing is not None:
        return None
    count, first = await views.parked_events(limit)
    return {"count": count, "first": [each._asdict() for each in first]}
