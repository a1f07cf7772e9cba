"""Types and queues: their waiting and running jobs, limits and pauses."""

from typing import Any

from aiohttp import web

from eventjobs.commands.pauses import Kind
from eventjobs.domain.job import DEFAULT_QUEUE
from eventjobs.domain.validation import read_queue_name
from eventjobs.errors import UnknownType
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.lists import page
from eventjobs.http.pauses import current_pauses, render_pause
from eventjobs.http.requests import read_reason, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.projections.queue import SELECT_QUEUE_COUNTS
from eventjobs.service import Service

Fields = dict[str, Any]


async def types(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Every type of job: its waiting and running jobs, its limits, and its pause."""
    await views_caught_up(context.service)
    position = context.service.views.position
    types = await _types(context.service)
    return page(context, request, "types", "type", types, position=position)


async def queues(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Every queue that has waiting or running jobs, a limit or a pause."""
    await views_caught_up(context.service)
    position = context.service.views.position
    queues = await _queues(context.service)
    return page(context, request, "queues", "queue", queues, position=position)


async def pause_type(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Start no more jobs of this type until it is resumed; running jobs continue. The pause
    outlives a restart. Harmless to repeat: the first pause stays in force.
    """
    return await _set_pause(context, request, "type", pause=True)


async def resume_type(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Start jobs of this type again. Harmless to repeat."""
    return await _set_pause(context, request, "type", pause=False)


async def pause_queue(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Start no more jobs in this queue until it is resumed; running jobs continue. The pause
    outlives a restart. Harmless to repeat: the first pause stays in force.
    """
    return await _set_pause(context, request, "queue", pause=True)


async def resume_queue(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Start jobs in this queue again. Harmless to repeat."""
    return await _set_pause(context, request, "queue", pause=False)


async def _set_pause(
    context: AppContext, request: web.Request, kind: Kind, *, pause: bool
) -> web.StreamResponse:
    service = context.service
    name = request.match_info[kind]
    options = await read_reason(service, request)
    await _check_name(service, kind, name)
    if pause:
        await service.pauses.pause(kind, name, options.reason, actor=principal_of(request).name)
    else:
        await service.pauses.resume(kind, name, actor=principal_of(request).name)
    await views_caught_up(service)
    entries = await (_types if kind == "type" else _queues)(service, name)
    return reply(next(each for each in entries if each[kind] == name))


async def _check_name(service: Service, kind: Kind, name: str) -> None:
    """Raises UnknownType, InvalidInput: a misspelt name would pause nothing."""
    if kind == "queue":
        read_queue_name(name, "queue")
        return
    await views_caught_up(service)
    names = {each["type"] for each in await _types(service)}
    if name not in names:
        raise UnknownType(
            f"there is no type {name!r}; there are: {', '.join(sorted(names)) or 'none'}",
            [{"field": "type", "message": "no handler or worker runs it"}],
        )


async def _types(service: Service, *names: str) -> list[Fields]:
    counts = await service.views.counts()
    pauses = (await current_pauses(service))["type"]
    limits = service.limiter.limits
    busy = {name for name, by in counts.items() if by.get("queued", 0) or by.get("running", 0)}
    handlers = {each.type: each for each in service.handlers}
    return [
        {
            "type": name,
            "queue": (name in handlers and handlers[name].limits.queue) or DEFAULT_QUEUE,
            "waiting": counts.get(name, {}).get("queued", 0),
            "running": counts.get(name, {}).get("running", 0),
            "concurrency": limits.types.get(name),
            "key_concurrency": limits.of_key(name),
            "rate": str(limits.rates[name]) if name in limits.rates else None,
            "paused": render_pause(pauses.get(name)),
        }
        for name in sorted({*handlers, *service.claims.last_requested_us, *busy, *pauses, *names})
    ]


async def _queues(service: Service, *names: str) -> list[Fields]:
    counts: dict[str, dict[str, int]] = {}
    for name, status, jobs in await service.views.query(SELECT_QUEUE_COUNTS):
        counts.setdefault(name, {})[status] = jobs
    pauses = (await current_pauses(service))["queue"]
    limits = service.limiter.limits.queues
    used = {each.limits.queue for each in service.handlers if each.limits.queue is not None}
    return [
        {
            "queue": name,
            "waiting": counts.get(name, {}).get("queued", 0),
            "running": counts.get(name, {}).get("running", 0),
            "concurrency": limits.get(name),
            "paused": render_pause(pauses.get(name)),
        }
        for name in sorted({DEFAULT_QUEUE, *used, *counts, *limits, *pauses, *names})
    ]
