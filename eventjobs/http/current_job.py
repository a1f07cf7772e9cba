"""A job as it is now, from the views or from the log, and the response that shows it."""

import asyncio
from contextlib import suppress

from aiohttp import web

from eventjobs.commands.access import mask_for
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobUnreadable
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.headers import header_list
from eventjobs.http.request_errors import ViewsBehind
from eventjobs.http.requests import present_caught_up, require_job
from eventjobs.http.responses import JSON_HEADERS
from eventjobs.http.streams.snapshots import Snapshot, etag_of, masked_etag
from eventjobs.projections import JobView
from eventjobs.service import Service


async def current_snapshot(context: AppContext, job_id: str) -> Snapshot:
    """The snapshot of a job, with all that was written before this call.

    Raises JobNotFound, JobUnreadable, JobGone.
    """
    with suppress(ViewsBehind):
        await present_caught_up(context.service)
        if (snapshot := await context.snapshots.get(job_id)) is not None:
            require_job(snapshot.job)
            return snapshot
    # The views are behind or failing, or leave the job out: it is hidden, or cannot be read.
    job = await context.service.jobs.current(job_id)
    return await snapshot_since(context, require_job(job))


async def snapshot_since(context: AppContext, job: Job) -> Snapshot:
    """The snapshot of *job* in the views, which may show a later version. While the views are
    behind, it is *job* without progress.
    """
    with suppress(ViewsBehind):
        await present_caught_up(context.service)
        snapshot = await context.snapshots.get(job.job_id)
        if snapshot is not None and snapshot.job.version >= job.version:
            return snapshot
    body = context.snapshots.encode(JobView(job, None, None))
    return Snapshot(job, body, f'"{job.version}"')


async def mask_snapshot(context: AppContext, request: web.Request, snapshot: Snapshot) -> Snapshot:
    """*snapshot* as the principal of *request* may read it."""
    mask = await mask_for(context.service.jobs, principal_of(request), snapshot.job)
    if mask is not None:
        await asyncio.sleep(0)  # a page may have many large jobs
    return snapshot.hide(mask)


async def hide_events(
    context: AppContext, request: web.Request, job: Job, events: list[Recorded]
) -> list[Recorded]:
    """*events* of *job* as the principal of *request* may read them."""
    mask = await mask_for(context.service.jobs, principal_of(request), job)
    return events if mask is None else [mask.event(each) for each in events]


async def require_logged_job(service: Service, job_id: str) -> Job:
    """The job from the log. One with a damaged event is returned as it was before that event, so
    that its events can be inspected.

    Raises JobNotFound, JobGone; JobUnreadable where not even its first event can be read.
    """
    try:
        return require_job(await service.jobs.current(job_id))
    except JobUnreadable:
        if (parked := await service.jobs.load_even_parked(job_id)) is None:
            raise
        return parked


def etag_for(request: web.Request, job: Job) -> str:
    """The entity tag that the conditions of a command are checked against: that of the masked body
    where the request names it. Both are of the version that the command changes.
    """
    etag = etag_of(job)
    if not job.spec.sensitive:
        return etag
    masked = masked_etag(etag)
    named = header_list(request, "If-Match"), header_list(request, "If-None-Match")
    return masked if any(masked in each for each in named) else etag


def snapshot_response(snapshot: Snapshot, status: int = 200, **headers: str) -> web.Response:
    """The response with *snapshot*, its ETag and *headers*."""
    headers = JSON_HEADERS | headers | {"ETag": snapshot.etag}
    return web.Response(status=status, body=snapshot.body, headers=headers)
