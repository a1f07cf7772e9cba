"""Jobs: list, read, cancel, retry, delete."""

from functools import partial
from typing import Any

import orjson
from aiohttp import web

from eventjobs.auth.policy import Action, JobFacts, may_unmask, permits
from eventjobs.auth.principals import Principal
from eventjobs.commands.access import permits_id
from eventjobs.commands.jobs import Guard, RetryOptions
from eventjobs.domain.job import Job
from eventjobs.errors import JobGone, WrongState
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of, restrict_owner
from eventjobs.http.current_job import (
    current_snapshot,
    etag_for,
    mask_snapshot,
    snapshot_response,
    snapshot_since,
)
from eventjobs.http.cursors import born_of, cursor
from eventjobs.http.headers import (
    check_command,
    check_match,
    is_conditional,
    is_known,
    preference,
    wants_stream,
)
from eventjobs.http.json_body import read_json
from eventjobs.http.polls import poll
from eventjobs.http.raw_response import can_send_raw, raw_response
from eventjobs.http.request_errors import query_error
from eventjobs.http.requests import path_id, read_query, read_reason, views_caught_up
from eventjobs.http.responses import JSON_HEADERS, NO_CACHE
from eventjobs.http.schemas.queries import JobQuery, JobsQuery
from eventjobs.http.streams.job_filter import JobFilter, restrict_filter
from eventjobs.http.streams.snapshots import Snapshot
from eventjobs.service import Service


async def get(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The job as it is now: at once, when it changes (`Prefer: wait`), or as a stream."""
    query = read_query(request, JobQuery)
    if wants_stream(request):
        selection = JobFilter(ids=frozenset({await path_id(context.service, request)}))
        return await context.streams.snapshots(request, selection, query.after)
    if "Prefer" in request.headers and "If-None-Match" in request.headers:
        return await _when_changed(context, request)
    job_id = await path_id(context.service, request)
    return _unless_known(request, await _snapshot(context, request, job_id))


async def _snapshot(context: AppContext, request: web.Request, job_id: str) -> Snapshot:
    """The job as it is now, as the principal may read it. Raises as *current_snapshot*."""
    return await mask_snapshot(context, request, await current_snapshot(context, job_id))


def get_cached(context: AppContext, request: web.Request, vary: str) -> web.StreamResponse | None:
    """The job from memory, without an await; None where *get* has to answer."""
    service = context.service
    headers = request.headers
    if (
        service.views.present_position < service.log.head
        or "Prefer" in headers
        or "If-Match" in headers
        or request.rel_url.raw_query_string
        or wants_stream(request)
        or not can_send_raw(request)
        or context.guard.check(request)
    ):
        return None
    snapshot = context.snapshots.get_cached(request.match_info["id"])
    if snapshot is None or snapshot.job.expired_us is not None:
        return None
    if snapshot.job.imported is not None:  # its file may have changed
        return None
    principal = context.authenticator.get_cached(request)
    facts = JobFacts(snapshot.job.spec.owner)
    if principal is None or not permits(principal, Action.READ, facts):
        return None
    if snapshot.job.spec.sensitive and not may_unmask(principal, facts):
        return None
    status, body = 200, snapshot.body
    if is_known(request, snapshot.etag):
        status, body = 304, b""
    fields = {"ETag": snapshot.etag, "Vary": vary}
    if context.cors is not None:
        context.cors.add_headers(request, fields)
    request_id = context.request_ids.of(request)
    return raw_response(request, status, fields, body, request_id, service.clock.now_us())


async def _when_changed(context: AppContext, request: web.Request) -> web.Response:
    """Answer once the job has another ETag than the client's, or the preferred wait is over."""
    job_id = await path_id(context.service, request)
    value = preference(request, "wait") or ""
    wait_s = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None

    async def look() -> Snapshot | None:
        snapshot = await _snapshot(context, request, job_id)
        check_match(request, snapshot.etag)
        return None if is_known(request, snapshot.etag) else snapshot

    wait = partial(context.service.log.wait, job_id=job_id)
    changed = await poll(context, request, look, wait_s or 0, wait)
    response = _unless_known(request, changed or await _snapshot(context, request, job_id))
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


async def jobs(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Jobs by page, newest first by default; or as a stream of changes."""
    service = context.service
    settings = service.settings
    query = read_query(request, JobsQuery)
    principal = principal_of(request)
    if wants_stream(request):
        selection = restrict_filter(principal, query.selection(settings.ids_max))
        return await context.streams.snapshots(request, selection, query.after)
    if query.after is not None:
        raise query_error("after", "only a stream continues; a page has a cursor")
    filters = query.filters(settings.ids_max)
    await _restrict(service, principal, filters)
    born = None if query.cursor is None else born_of(query.cursor, filters, query.order)
    limit = min(query.limit, settings.page_max)
    await views_caught_up(service)
    position = service.views.position
    views = await service.views.jobs(filters, order=query.order, cursor=born, limit=limit + 1)
    page = [context.snapshots.of(view) for view in views[:limit]]
    masked = [
        await mask_snapshot(context, request, each) if each.job.spec.sensitive else each
        for each in page
    ]
    headers = dict(JSON_HEADERS)
    following = None
    if len(views) > limit:
        following = cursor(page[-1].job.born, filters, query.order)
        address = request.rel_url.update_query(cursor=following)
        headers["Link"] = f'<{address}>; rel="next"'
    body = b'{"jobs":[%b],"next":%b,"position":%d}' % (
        b",".join([each.body for each in masked]),
        orjson.dumps(following),
        position,
    )
    return web.Response(body=body, headers=headers)


async def cancel(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Cancel a queued job at once, or request that a running one stops. Harmless to repeat."""
    options = await read_reason(context.service, request)
    result = await context.service.jobs.cancel(
        await path_id(context.service, request, Action.CONTROL),
        options.reason,
        actor=principal_of(request).name,
        guard=_guard(request),
    )
    return await _changed_job(context, request, result.job)


async def retry(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Queue a failed or cancelled job again, with all its attempts: it continues after the
    completed steps, or from a named one, or starts over.
    """
    options = (
        await read_json(context.service, request, RetryOptions)
        if request.can_read_body
        else RetryOptions()
    )
    result = await context.service.submissions.retry(
        await path_id(context.service, request, Action.CONTROL),
        options,
        actor=principal_of(request).name,
        guard=_guard(request),
    )
    return await _changed_job(context, request, result.job)


async def delete(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Hide a job. A queued job is cancelled first. A running one is only requested to stop (202):
    delete it again once it has ended. Its events stay in the log.
    """
    job_id = await path_id(context.service, request, Action.CONTROL)
    actor = principal_of(request).name
    guard = _guard(request)
    jobs = context.service.jobs
    try:
        job = (await jobs.cancel(job_id, "deleted", actor=actor, guard=guard)).job
        if not job.finished:
            return await _changed_job(context, request, job, status=202)
        guard = None  # the cancellation made a new version
    except WrongState:
        pass  # it has ended: there is nothing to cancel
    except JobGone:
        return web.Response(status=204)
    await jobs.expire(job_id, "deleted", actor=actor, guard=guard)
    return web.Response(status=204)


async def _changed_job(
    context: AppContext, request: web.Request, job: Job, status: int = 200
) -> web.Response:
    snapshot = await snapshot_since(context, job)
    return snapshot_response(await mask_snapshot(context, request, snapshot), status)


async def _restrict(service: Service, principal: Principal, filters: dict[str, Any]) -> None:
    """Restrict *filters* to the jobs that *principal* may see. Raises as *restrict_owner*."""
    if (ids := filters["job_id"]) is None:
        filters["owner"] = restrict_owner(principal, filters["owner"])
    else:
        jobs = service.jobs
        filters["job_id"] = [
            each for each in ids if await permits_id(jobs, principal, Action.READ, each)
        ]


def _guard(request: web.Request) -> Guard | None:
    """The check of the request's conditions, against the version that the command changes."""
    if not is_conditional(request):
        return None
    return lambda job: check_command(request, etag_for(request, job))


def _unless_known(request: web.Request, snapshot: Snapshot) -> web.Response:
    """The snapshot, or 304 where the client has it. Raises PreconditionFailed."""
    check_match(request, snapshot.etag)
    if is_known(request, snapshot.etag):
        return web.Response(status=304, headers={"ETag": snapshot.etag, **NO_CACHE})
    return snapshot_response(snapshot)
