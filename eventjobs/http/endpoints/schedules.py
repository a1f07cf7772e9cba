"""Recurring jobs: their schedules, next firings and pauses."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from eventjobs.domain.job import Job
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import UnknownSchedule
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.lists import page
from eventjobs.http.pauses import current_pauses, render_pause
from eventjobs.http.render import time_or_none
from eventjobs.http.requests import read_reason, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.maintenance.cron import FiringError, ScheduleStatus
from eventjobs.projections.pauses import Pause
from eventjobs.service import Service


async def schedules(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The recurring jobs that the service's handlers declare."""
    return page(context, request, "schedules", "name", await _schedules(context.service))


async def pause(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit no more jobs of this schedule until it is resumed. Jobs already submitted stay. The
    pause outlives a restart, and skipped firings are not caught up. Harmless to repeat: the first
    pause stays in force.
    """
    name = _name(context, request)
    options = await read_reason(context.service, request)
    await context.service.pauses.pause(
        "schedule", name, options.reason, actor=principal_of(request).name
    )
    return await _one(context, name)


async def resume(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit jobs of this schedule again, from its next firing on. Harmless to repeat."""
    name = _name(context, request)
    await read_reason(context.service, request)
    await context.service.pauses.resume("schedule", name, actor=principal_of(request).name)
    return await _one(context, name)


def _name(context: AppContext, request: web.Request) -> str:
    """The schedule in the path. Raises UnknownSchedule."""
    name = request.match_info["name"]
    names = {each.name for each in context.service.handlers.schedules}
    if name not in names:
        raise UnknownSchedule(
            f"there is no schedule {name!r}; there are: {', '.join(sorted(names)) or 'none'}"
        )
    return name


async def _one(context: AppContext, name: str) -> web.StreamResponse:
    return reply(next(each for each in await _schedules(context.service) if each["name"] == name))


async def _schedules(service: Service) -> list[dict[str, Any]]:
    await views_caught_up(service)
    pauses = (await current_pauses(service))["schedule"]
    return [_schedule(each, pauses) for each in await service.cron.statuses()]


def _schedule(status: ScheduleStatus, pauses: dict[str, Pause]) -> dict[str, Any]:
    schedule, next_us, last, error = status
    pause = pauses.get(schedule.name)
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.zone.key,
        "type": schedule.spec.type,
        "payload": schedule.spec.payload,
        "next_at": time_or_none(next_us if pause is None else None),
        "last": None if last is None else _firing(last),
        "last_error": None if error is None else _error(error),
        "paused": render_pause(pause),
        "jobs": f"/v1/jobs?tag={quote(schedule.tag)}",
    }


def _error(error: FiringError) -> dict[str, Any]:
    return {"at": rfc3339(error.at_us), "code": error.code, "message": error.message}


def _firing(job: Job) -> dict[str, Any]:
    hidden = job.expired_us is not None
    return {
        "at": rfc3339(job.spec.run_at_us or 0),
        "job_id": job.job_id,
        "status": job.status,
        "url": None if hidden else f"/v1/jobs/{job.job_id}",
    }
