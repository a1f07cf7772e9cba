"""Recurring jobs over HTTP: which there are, when each fires next, and what became of the last."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from eventjobs.events import rfc3339
from eventjobs.http.api import caught_up, reply
from eventjobs.http.route import Site
from eventjobs.http.snapshot import time_or_none
from eventjobs.job import Job
from eventjobs.recurring import Told


async def schedules(site: Site, request: web.Request) -> web.StreamResponse:
    """The recurring jobs that the service's handlers declare."""
    await caught_up(site.service)
    return reply({"schedules": [_schedule(each) for each in await site.service.recurring.told()]})


def _schedule(told: Told) -> dict[str, Any]:
    schedule, next_us, last = told
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.zone.key,
        "type": schedule.spec.type,
        "payload": schedule.spec.payload,
        "next_at": time_or_none(next_us),
        "last": None if last is None else _firing(last),
        "jobs": f"/v1/jobs?tag={quote(schedule.tag)}",
    }


def _firing(job: Job) -> dict[str, Any]:
    hidden = job.expired_us is not None
    return {
        "at": rfc3339(job.spec.run_at_us or 0),
        "job_id": job.job_id,
        "status": job.status,
        "url": None if hidden else f"/v1/jobs/{job.job_id}",
    }
