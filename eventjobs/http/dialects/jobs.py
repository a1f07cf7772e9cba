"""Reads and submissions of jobs for the routes of dialects, under the policy of all routes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import Principal
from eventjobs.commands.access import mask_for, permits_id
from eventjobs.domain.ids import new_id
from eventjobs.domain.job import Job
from eventjobs.errors import JobNotFound
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import owner_of, principal_of
from eventjobs.http.request_errors import ViewsBehind
from eventjobs.http.request_ids import JOB_ID
from eventjobs.http.requests import present_caught_up, require_job
from eventjobs.http.schemas.submission import Submission
from eventjobs.projections import JobView
from eventjobs.service import Service


async def check_access(
    context: AppContext, request: web.Request, job_id: str, action: Action = Action.READ
) -> None:
    """Raises JobNotFound for a job with which the principal may not do *action*."""
    await _check_access(context.service, principal_of(request), job_id, action)


async def _check_access(
    service: Service, principal: Principal, job_id: str, action: Action
) -> None:
    await service.imports.refresh(job_id)
    if not await permits_id(service.jobs, principal, action, job_id):
        raise JobNotFound


async def find_view(context: AppContext, request: web.Request, job_id: str) -> JobView:
    """The job as the sender of *request* may read it. Raises as *view_for*."""
    return await view_for(context.service, principal_of(request), job_id)


async def view_for(service: Service, principal: Principal, job_id: str) -> JobView:
    """The job with its progress, as it is now, and as *principal* may read it.

    Raises JobNotFound, JobGone, JobUnreadable.
    """
    await _check_access(service, principal, job_id, Action.READ)
    return await mask_view(service, principal, await _find_view(service, job_id))


async def _find_view(service: Service, job_id: str) -> JobView:
    with suppress(ViewsBehind):
        await present_caught_up(service)
        if (view := await service.views.job(job_id)) is not None:
            require_job(view.job)
            return view
    return JobView(require_job(await service.jobs.current(job_id)), None, None)


async def mask_view(service: Service, principal: Principal, view: JobView) -> JobView:
    """*view* without the sensitive values that *principal* may not read."""
    mask = await mask_for(service.jobs, principal, view.job)
    return view if mask is None else mask.record(view)


async def submit(
    context: AppContext,
    request: web.Request,
    type: str,
    payload: Any,
    *,
    artifacts: Mapping[str, str] | None = None,
    **options: Any,
) -> Job:
    """Submit a job of the principal. *artifacts* are uploaded files, {name: sha256}; *options* are
    further fields of a submission. Raises as Submissions.submit.
    """
    service, principal = context.service, principal_of(request)
    submission = Submission(type=type, payload=payload, artifacts=dict(artifacts or {}), **options)
    owner = owner_of(principal, None)
    spec = await submission.spec(service, principal, owner, named=False)
    job_id = request[JOB_ID] = new_id(service.clock.now_us())
    submitted = await service.submissions.submit(
        spec, actor=principal.name, principal=principal, job_id=job_id
    )
    return submitted.job
