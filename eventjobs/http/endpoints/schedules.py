"""Recurring jobs over HTTP: which there are, when each fires next, and pausing it."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from eventjobs.domain.job import Job
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import UnknownSchedule
from eventjobs.http.app_context import AppContext
from eventjobs.http.endpoints.queues import paused_now, told_pause
from eventjobs.http.lists import page
from eventjobs.http.render import time_or_none
from eventjobs.http.requests import ACTOR, reason_of, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.maintenance.cron import FiringError, ScheduleStatus
from eventjobs.projections.pauses import Pause
from eventjobs.service import Service


async def schedules(site: AppContext, request: web.Request) -> web.StreamResponse:
    """The recurring jobs that the service's handlers declare."""
    return page(site, request, "schedules", "name", await _schedules(site.service))


async def pause(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit no more jobs of this schedule, until it is resumed; those that are submitted stay. It
    outlives a restart, and what it leaves out is not made up for. Harmless to repeat: a pause
    stays the one that it is.
    """
    name, why = _name(site, request), await reason_of(site, request)
    await site.service.pauses.pause("schedule", name, why.reason, actor=ACTOR)
    return await _one(site, name)


async def resume(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit jobs of this schedule again, from its next time on. Harmless to repeat."""
    name, _ = _name(site, request), await reason_of(site, request)
    await site.service.pauses.resume("schedule", name, actor=ACTOR)
    return await _one(site, name)


def _name(site: AppContext, request: web.Request) -> str:
    """Raises UnknownSchedule."""
    name = request.match_info["name"]
    known = {each.name for each in site.service.handlers.schedules}
    if name not in known:
        raise UnknownSchedule(
            f"there is no schedule {name!r}; there are: {', '.join(sorted(known)) or 'none'}"
        )
    return name


async def _one(site: AppContext, name: str) -> web.StreamResponse:
    return reply(next(each for each in await _schedules(site.service) if each["name"] == name))


async def _schedules(service: Service) -> list[dict[str, Any]]:
    await views_caught_up(service)
    paused = (await paused_now(service))["schedule"]
    return [_schedule(each, paused) for each in await service.cron.statuses()]


def _schedule(told: ScheduleStatus, paused: dict[str, Pause]) -> dict[str, Any]:
    schedule, next_us, last, error = told
    pause = paused.get(schedule.name)
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.zone.key,
        "type": schedule.spec.type,
        "payload": schedule.spec.payload,
        "next_at": time_or_none(next_us if pause is None else None),
        "last": None if last is None else _firing(last),
        "last_error": None if error is None else _error(error),
        "paused": told_pause(pause),
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
