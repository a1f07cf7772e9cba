"""Submission of one job, with or without an id."""

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.domain.ids import child_id, is_reserved, new_id, parse_id
from eventjobs.errors import JobExists, PreconditionFailed, ReservedId
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import check_permission, owner_of, principal_of
from eventjobs.http.current_job import (
    etag_for,
    mask_snapshot,
    snapshot_response,
    snapshot_since,
)
from eventjobs.http.headers import check_command, is_conditional
from eventjobs.http.idempotency import idempotency_key
from eventjobs.http.json_body import child_limits, read_json, request_limits
from eventjobs.http.raw_response import can_send_raw, raw_response
from eventjobs.http.request_errors import RequestError
from eventjobs.http.request_ids import JOB_ID, REQUEST_ID
from eventjobs.http.requests import checked_holder
from eventjobs.http.responses import JSON_HEADERS
from eventjobs.http.schemas.submission import Submission
from eventjobs.http.streams.snapshots import Snapshot
from eventjobs.projections import JobView
from eventjobs.worker.wire import CHILD_HEADER, parse_child_header


async def submit(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a job. With an Idempotency-Key it is safe to repeat: one key is one job."""
    key = idempotency_key(request.headers.getall("Idempotency-Key", []))
    submission = await read_json(context.service, request, Submission)
    owner = owner_of(principal_of(request), submission.owner)
    job_id = await context.service.jobs.id_of_key(key, owner) if key else None
    return await _accept(context, request, submission, owner, job_id, key=bool(key))


async def put(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a job under an id of your own, a UUID: safe to repeat."""
    if "Idempotency-Key" in request.headers:
        raise RequestError("the id in the address is the key; leave Idempotency-Key out")
    job_id = parse_id(request.match_info["id"])
    limits = child_limits if CHILD_HEADER in request.headers else request_limits
    submission = await read_json(context.service, request, Submission, limits)
    if is_reserved(job_id):
        owner, job_id = await _child(context, request, submission, job_id)
    else:
        check_permission(principal_of(request), Action.SUBMIT)
        owner = owner_of(principal_of(request), submission.owner)
    if not is_conditional(request):
        return await _accept(context, request, submission, owner, job_id)
    job = await context.service.jobs.current(job_id)
    if job is not None and job.spec.owner != owner:
        raise JobExists
    visible = job is not None and job.expired_us is None
    check_command(request, etag_for(request, job) if job is not None and visible else None)
    return await _accept(context, request, submission, owner, job_id, new=not visible)


async def _child(
    context: AppContext, request: web.Request, submission: Submission, job_id: str
) -> tuple[str | None, str]:
    """The owner and the id of a child whose parent is held by the worker that submits it.

    Raises ReservedId, JobNotFound, StaleAttempt.
    """
    if (header := request.headers.get(CHILD_HEADER)) is None:
        raise ReservedId
    check_permission(principal_of(request), Action.WORK)
    holder, name = parse_child_header(header)
    if submission.parent != holder.job_id or job_id != child_id(holder.job_id, name):
        raise ReservedId
    holder = await checked_holder(context.service, request, holder)
    parent = await context.service.jobs.load(holder.job_id)
    owner = None if parent is None else parent.spec.owner
    return owner, await context.service.attempt_reports.child_id(holder, name)


async def _accept(
    context: AppContext,
    request: web.Request,
    submission: Submission,
    owner: str | None,
    job_id: str | None,
    *,
    key: bool = False,
    new: bool = False,
) -> web.StreamResponse:
    """Submit the job and answer with it. Raises PreconditionFailed where the job must be *new* and
    already exists.
    """
    service = context.service
    principal = principal_of(request)
    spec = await submission.spec(service, principal, owner, named=job_id is not None)
    # Drawn before the submission, so that an unknown outcome is answered with the id.
    job_id = request[JOB_ID] = job_id or new_id(service.clock.now_us())
    job, changed = await service.submissions.submit(
        spec, actor=principal.name, principal=principal, job_id=job_id, key=key
    )
    if not changed:
        if new:  # a concurrent request submitted it first
            raise PreconditionFailed
        snapshot = await mask_snapshot(context, request, await snapshot_since(context, job))
        return snapshot_response(snapshot, Location=f"/v1/jobs/{job_id}")
    body = context.snapshots.encode(JobView(job, None, None))
    snapshot = await mask_snapshot(context, request, Snapshot(job, body, f'"{job.version}"'))
    body = snapshot.body
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": "1", "ETag": snapshot.etag}
    if can_send_raw(request):
        if context.cors is not None:
            context.cors.add_headers(request, headers)
        return raw_response(
            request, 202, headers, body, request[REQUEST_ID], service.clock.now_us()
        )
    return web.Response(status=202, body=body, headers=JSON_HEADERS | headers)
