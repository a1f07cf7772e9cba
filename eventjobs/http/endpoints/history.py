"""A job's history and receipt, told for people."""

from aiohttp import web

from eventjobs.http.app_context import AppContext
from eventjobs.http.endpoints.events import _there
from eventjobs.http.requests import path_id
from eventjobs.http.responses import reply
from eventjobs.projections import history as told
from eventjobs.projections import receipt as receipts


async def history(site: AppContext, request: web.Request) -> web.StreamResponse:
    """What happened to a job, told for a person: who, what, when, why, and how long."""
    job_id = path_id(request)
    await _there(site.service, job_id)
    return reply(
        {"job_id": job_id, **told.describe_history(await site.service.log.read_job(job_id))}
    )


async def receipt(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Every attempt of a job on one line: who held it, when, how it ended; which of them overlap,
    and what was refused because it came too late.
    """
    job_id = path_id(request)
    await _there(site.service, job_id)
    return reply(
        {"job_id": job_id, **receipts.describe_receipt(await site.service.log.read_job(job_id))}
    )
