"""Types and queues over HTTP: what waits and runs, what limits it, and pausing it."""

from typing import Any, get_args

from aiohttp import web

from eventjobs.commands.pauses import Kind
from eventjobs.domain.job import DEFAULT_QUEUE
from eventjobs.domain.timestamps import rfc3339
from eventjobs.domain.validation import read_queue_name
from eventjobs.errors import UnknownType
from eventjobs.http.app_context import AppContext
from eventjobs.http.lists import page
from eventjobs.http.requests import ACTOR, reason_of, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.projections import pauses, queue
from eventjobs.projections.pauses import Pause
from eventjobs.service import Service

Fields = dict[str, Any]


async def types(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Every type of job: what waits and runs, what limits it, and whether it is paused."""
    await views_caught_up(site.service)
    position = site.service.views.position
    types = await _types(site.service)
    return page(site, request, "types", "type", types, position=position)


async def queues(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Every queue that something waits or runs in, that is limited, or that is paused."""
    await views_caught_up(site.service)
    position = site.service.views.position
    queues = await _queues(site.service)
    return page(site, request, "queues", "queue", queues, position=position)


async def pause_type(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Start no more jobs of this type, until it is resumed; what runs goes on. It outlives a
    restart. Harmless to repeat: a pause stays the one that it is.
    """
    return await _switch(site, request, "type", pause=True)


async def resume_type(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Start jobs of this type again. Harmless to repeat."""
    return await _switch(site, request, "type", pause=False)


async def pause_queue(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Start no more jobs in this queue, until it is resumed; what runs goes on. It outlives a
    restart. Harmless to repeat: a pause stays the one that it is.
    """
    return await _switch(site, request, "queue", pause=True)


async def resume_queue(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Start jobs in this queue again. Harmless to repeat."""
    return await _switch(site, request, "queue", pause=False)


async def _switch(
    site: AppContext, request: web.Request, kind: Kind, *, pause: bool
) -> web.StreamResponse:
    service = site.service
    name = request.match_info[kind]
    why = await reason_of(site, request)
    await _check(service, kind, name)
    if pause:
        await service.pauses.pause(kind, name, why.reason, actor=ACTOR)
    else:
        await service.pauses.resume(kind, name, actor=ACTOR)
    await views_caught_up(service)
    told = await (_types if kind == "type" else _queues)(service, name)
    return reply(next(each for each in told if each[kind] == name))


async def _check(service: Service, kind: Kind, name: str) -> None:
    """A name with a slip in it would pause nothing. Raises UnknownType, InvalidInput."""
    if kind == "queue":
        read_queue_name(name, "queue")
        return
    await views_caught_up(service)
    known = {each["type"] for each in await _types(service)}
    if name not in known:
        raise UnknownType(
            f"there is no type {name!r}; there are: {', '.join(sorted(known)) or 'none'}",
            [{"field": "type", "message": "nobody runs it"}],
        )


async def _types(service: Service, *names: str) -> list[Fields]:
    counts = await service.views.counts()
    paused = (await paused_now(service))["type"]
    limits = service.limiter.limits
    busy = {name for name, by in counts.items() if by.get("queued", 0) or by.get("running", 0)}
    handlers = {each.type: each for each in service.handlers}
    return [
        {
            "type": name,
            "queue": (name in handlers and handlers[name].flow.queue) or DEFAULT_QUEUE,
            "waiting": counts.get(name, {}).get("queued", 0),
            "running": counts.get(name, {}).get("running", 0),
            "concurrency": limits.types.get(name),
            "key_concurrency": limits.of_key(name),
            "rate": str(limits.rates[name]) if name in limits.rates else None,
            "paused": told_pause(paused.get(name)),
        }
        for name in sorted({*handlers, *service.claims.last_requested_us, *busy, *paused, *names})
    ]


async def _queues(service: Service, *names: str) -> list[Fields]:
    counts: dict[str, dict[str, int]] = {}
    for name, status, jobs in await service.views.query(queue.SELECT_QUEUE_COUNTS):
        counts.setdefault(name, {})[status] = jobs
    paused = (await paused_now(service))["queue"]
    limits = service.limiter.limits.queues
    used = {each.flow.queue for each in service.handlers if each.flow.queue is not None}
    return [
        {
            "queue": name,
            "waiting": counts.get(name, {}).get("queued", 0),
            "running": counts.get(name, {}).get("running", 0),
            "concurrency": limits.get(name),
            "paused": told_pause(paused.get(name)),
        }
        for name in sorted({DEFAULT_QUEUE, *used, *counts, *limits, *paused, *names})
    ]


async def paused_now(service: Service) -> dict[str, dict[str, Pause]]:
    """What is paused, by kind and name."""
    found: dict[str, dict[str, Pause]] = {kind: {} for kind in get_args(Kind)}
    for row in await service.views.query(pauses.SELECT_PAUSES):
        pause = Pause(*row)
        found[pause.kind][pause.name] = pause
    return found


def told_pause(pause: Pause | None) -> Fields | None:
    if pause is None:
        return None
    return {"since": rfc3339(pause.since_us), "by": pause.actor, "reason": pause.reason}
