"""Counts, readiness, liveness, and the rebuild of the views."""

from aiohttp import web

from eventjobs import __version__
from eventjobs.http.app_context import AppContext
from eventjobs.http.endpoints.jobs import _parked
from eventjobs.http.problem import NotReady
from eventjobs.http.requests import views_caught_up
from eventjobs.http.responses import reply


async def counts(site: AppContext, request: web.Request) -> web.StreamResponse:
    """How many jobs there are by type and status."""
    await views_caught_up(site.service)
    position = site.service.views.position
    return reply({"counts": await site.service.views.counts(), "position": position})


async def rebuild(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Build the views anew from the log, beside the live ones; answers when they are in place."""
    return reply({"position": await site.service.views.rebuild()})


async def healthz(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Whether the process lives."""
    return reply({"status": "ok"})


async def readyz(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Whether the service serves, and how far its views are behind the log."""
    service = site.service
    if not service.ready:
        names = ", ".join(service.failing)
        raise NotReady(
            f"failed and restarted, see the log of the service: {names}" if names else None
        )
    head, views = service.log.head, service.views
    unwritable = await service.log.unwritable()
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
            "parked": await _parked(views),
        }
    )
