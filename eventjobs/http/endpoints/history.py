"""A job's history and receipt, for people."""

from aiohttp import web

from eventjobs.domain.recorded import Recorded
from eventjobs.http.app_context import AppContext
from eventjobs.http.current_job import hide_events, require_logged_job
from eventjobs.http.requests import path_id
from eventjobs.http.responses import reply
from eventjobs.projections.history import describe_history
from eventjobs.projections.receipt import describe_receipt


async def history(context: AppContext, request: web.Request) -> web.StreamResponse:
    """What happened to a job, for people: who, what, when, why, and how long."""
    job_id, events = await _events(context, request)
    return reply({"job_id": job_id, **describe_history(events)})


async def receipt(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Every attempt of a job on one line: its worker, its times and its outcome; which attempts
    overlap, and which reports were refused because they came too late.
    """
    job_id, events = await _events(context, request)
    return reply({"job_id": job_id, **describe_receipt(events)})


async def _events(context: AppContext, request: web.Request) -> tuple[str, list[Recorded]]:
    """The id of the job, and its events as the principal may read them."""
    job_id = await path_id(context.service, request)
    job = await require_logged_job(context.service, job_id)
    events = await context.service.log.read_job(job_id)
    return job_id, await hide_events(context, request, job, events)
