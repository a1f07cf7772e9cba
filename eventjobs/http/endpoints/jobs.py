"""Jobs over HTTP: submit, list, read, cancel, retry, delete; and how the service is."""

from contextlib import suppress
from typing import Any

import orjson
from aiohttp import web

from eventjobs.commands.jobs import Guard, RetryOptions
from eventjobs.domain.ids import child_id, id_of_key, is_reserved, new_id, parse_id
from eventjobs.domain.job import Job
from eventjobs.errors import JobGone, PreconditionFailed, ReservedId, WrongState
from eventjobs.http.app_context import JOB_ID, REQUEST_ID, AppContext
from eventjobs.http.cursors import born_of, cursor
from eventjobs.http.headers import (
    check_command,
    check_match,
    is_conditional,
    is_known,
    preference,
    wants_stream,
)
from eventjobs.http.idempotency import idempotency_key
from eventjobs.http.origin_guard import reject_foreign_origin
from eventjobs.http.problem import RequestError, ViewsBehind
from eventjobs.http.raw_response import can_send_raw, raw_response
from eventjobs.http.request_body import child_limits, read_json, request_limits
from eventjobs.http.requests import (
    ACTOR,
    path_id,
    read_query,
    reason_of,
    require_job,
    views_caught_up,
)
from eventjobs.http.responses import JSON, NO_CACHE
from eventjobs.http.schemas.queries import JobQuery, JobsQuery, unfit
from eventjobs.http.schemas.submission import Submission
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.snapshots import Snapshot, etag_of
from eventjobs.projections.views import JobView, Views
from eventjobs.worker.wire import CHILD_HEADER, parse_child_header

#: Events that cannot be read, of which readyz tells more than their number.
PARKED_MAX = 10


async def submit(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a job. With an Idempotency-Key it is safe to repeat: one key is one job."""
    key = idempotency_key(request.headers.getall("Idempotency-Key", []))
    given = await read_json(site.service, request, Submission)
    return await _accept(site, request, given, id_of_key(key) if key else None, key=bool(key))


async def put(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a job under an id of your own, a UUID: safe to repeat."""
    if "Idempotency-Key" in request.headers:
        raise RequestError("the id in the address is the key; leave Idempotency-Key out")
    job_id = parse_id(request.match_info["id"])
    limits = child_limits if CHILD_HEADER in request.headers else request_limits
    given = await read_json(site.service, request, Submission, limits)
    if is_reserved(job_id):
        job_id = await _child_id(site, request, given, job_id)
    if not is_conditional(request):
        return await _accept(site, request, given, job_id)
    job = await site.service.jobs.load_newest(job_id)
    there = job is not None and job.expired_us is None
    check_command(request, etag_of(job) if job is not None and there else None)
    return await _accept(site, request, given, job_id, new=not there)


async def _child_id(site: AppContext, request: web.Request, given: Submission, job_id: str) -> str:
    """That of a child whose parent is held by the worker that submits it. Raises ReservedId."""
    if (told := request.headers.get(CHILD_HEADER)) is None:
        raise ReservedId
    holder, name = parse_child_header(told)
    if given.parent != holder.job_id or job_id != child_id(holder.job_id, name):
        raise ReservedId
    return await site.service.attempt_reports.child_id(holder, name)


async def _accept(
    site: AppContext,
    request: web.Request,
    given: Submission,
    job_id: str | None,
    *,
    key: bool = False,
    new: bool = False,
) -> web.StreamResponse:
    """The answer to a submission. Raises PreconditionFailed where it must be *new*, and is not."""
    service = site.service
    spec = await given.spec(service, named=job_id is not None)
    # Drawn here, so that an unknown outcome can be told with the id to ask for.
    job_id = request[JOB_ID] = job_id or new_id(service.clock.now_us())
    job, changed = await service.accept(spec, actor=ACTOR, job_id=job_id, key=key)
    if not changed:
        if new:  # another request was faster
            raise PreconditionFailed
        return _answer(await _current(site, job), Location=f"/v1/jobs/{job_id}")
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": "1", "ETag": f'"{job.version}"'}
    body = site.snapshots.encode(JobView(job, None, None))
    if can_send_raw(request):
        return raw_response(
            request, 202, headers, body, request[REQUEST_ID], service.clock.now_us()
        )
    return web.Response(status=202, body=body, headers=JSON | headers)


async def get(site: AppContext, request: web.Request) -> web.StreamResponse:
    """The job as it is now: at once, when it changes (`Prefer: wait`), or as a stream."""
    if wants_stream(request):
        query = read_query(request, JobQuery)
        selection = JobFilter(ids=frozenset({path_id(request)}))
        return await site.streams.snapshots(request, selection, query.after)
    if "Prefer" in request.headers and "If-None-Match" in request.headers:
        return await _when_changed(site, request)
    return _unless_known(request, await now(site, path_id(request)))


def get_at_once(site: AppContext, request: web.Request) -> web.StreamResponse | None:
    """The same where nothing has to be waited for; None goes the long way."""
    service = site.service
    headers = request.headers
    if (
        service.views.position < service.log.head
        or "Prefer" in headers
        or "If-Match" in headers
        or wants_stream(request)
        or not can_send_raw(request)
        or reject_foreign_origin(request)
    ):
        return None
    snapshot = site.snapshots.get_cached(request.match_info["id"])
    if snapshot is None or snapshot.job.expired_us is not None:
        return None
    status, body = 200, snapshot.body
    if is_known(request, snapshot.etag):
        status, body = 304, b""
    told = {"ETag": snapshot.etag, "Vary": "Accept"}
    return raw_response(request, status, told, body, site.ids.of(request), service.clock.now_us())


async def _when_changed(site: AppContext, request: web.Request) -> web.Response:
    """Answer once the job is not what the client knows, or time is up."""
    job_id = path_id(request)
    asked = preference(request, "wait") or ""
    wait_s = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else None

    async def look() -> Snapshot | None:
        snapshot = await now(site, job_id)
        check_match(request, snapshot.etag)
        return None if is_known(request, snapshot.etag) else snapshot

    changed = await site.polls.wait_until(look, wait_s or 0, job_id)
    response = _unless_known(request, changed or await now(site, job_id))
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


async def jobs(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Jobs by page, newest first unless asked otherwise; or as a stream of what changes."""
    service = site.service
    settings = service.settings
    query = read_query(request, JobsQuery)
    if wants_stream(request):
        return await site.streams.snapshots(request, query.selection(settings.ids_max), query.after)
    if query.after is not None:
        raise unfit("after", "only a stream continues; a page has a cursor")
    filters = query.filters(settings.ids_max)
    born = None if query.cursor is None else born_of(query.cursor, filters, query.order)
    limit = min(query.limit, settings.page_max)
    await views_caught_up(service)
    position = service.views.position
    found = await service.views.jobs(filters, order=query.order, cursor=born, limit=limit + 1)
    page = [site.snapshots.of(view) for view in found[:limit]]
    headers = dict(JSON)
    following = None
    if len(found) > limit:
        following = cursor(page[-1].job.born, filters, query.order)
        address = request.rel_url.update_query(cursor=following)
        headers["Link"] = f'<{address}>; rel="next"'
    body = b'{"jobs":[%b],"next":%b,"position":%d}' % (
        b",".join([each.body for each in page]),
        orjson.dumps(following),
        position,
    )
    return web.Response(body=body, headers=headers)


async def cancel(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Cancel a job that waits, at once; ask one that runs to stop. Harmless to repeat."""
    why = await reason_of(site, request)
    done = await site.service.jobs.cancel(
        path_id(request), why.reason, actor=ACTOR, guard=_guard(request)
    )
    return _answer(await _current(site, done.job))


async def retry(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Queue a failed or cancelled job again, with all its attempts: it goes on after the steps
    that are completed, or from a named one, or starts over.
    """
    how = (
        await read_json(site.service, request, RetryOptions)
        if request.can_read_body
        else RetryOptions()
    )
    done = await site.service.jobs.retry(
        path_id(request),
        how.reason,
        from_step=how.from_step,
        restart=how.restart,
        actor=ACTOR,
        guard=_guard(request),
    )
    return _answer(await _current(site, done.job))


async def delete(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Hide a job; one that waits is cancelled first. One that runs is only asked to stop (202):
    delete it again once it has ended. The log keeps the facts.
    """
    job_id = path_id(request)
    guard = _guard(request)
    try:
        job = (await site.service.jobs.cancel(job_id, "deleted", actor=ACTOR, guard=guard)).job
        if not job.finished:
            return _answer(await _current(site, job), status=202)
        guard = None  # the job is another version now, by this request
    except WrongState:
        pass  # it ended by itself: there is nothing to cancel
    except JobGone:
        return web.Response(status=204)
    await site.service.jobs.expire(job_id, "deleted", actor=ACTOR, guard=guard)
    return web.Response(status=204)


async def _parked(views: Views) -> dict[str, Any] | None:
    """The events that could not be applied, unless the views cannot tell."""
    if views.failing is not None:
        return None
    count, first = await views.parked(PARKED_MAX)
    return {"count": count, "first": [each._asdict() for each in first]}


async def _current(site: AppContext, job: Job) -> Snapshot:
    """*job*, or what it is by now, as the views show it. From the log where they cannot."""
    with suppress(ViewsBehind):
        await views_caught_up(site.service)
        snapshot = await site.snapshots.get(job.job_id)
        if snapshot is not None and snapshot.job.version >= job.version:
            return snapshot
    body = site.snapshots.encode(JobView(job, None, None))
    return Snapshot(job, body, f'"{job.version}"')


async def now(site: AppContext, job_id: str) -> Snapshot:
    """The job as it is now. Raises JobNotFound, JobUnreadable, JobGone."""
    with suppress(ViewsBehind):
        await views_caught_up(site.service)
        if (snapshot := await site.snapshots.get(job_id)) is not None:
            return require_job(snapshot)
    # The views are late, or of no use; or leave out a job whose beginning cannot be read.
    job = await site.service.jobs.load_newest(job_id)
    return require_job(None if job is None else await _current(site, job))


def _guard(request: web.Request) -> Guard | None:
    """The conditions of a command, for the version that it is decided on."""
    if not is_conditional(request):
        return None
    return lambda job: check_command(request, etag_of(job))


def _answer(snapshot: Snapshot, status: int = 200, **headers: str) -> web.Response:
    told = JSON | headers | {"ETag": snapshot.etag}
    return web.Response(status=status, body=snapshot.body, headers=told)


def _unless_known(request: web.Request, snapshot: Snapshot) -> web.Response:
    """Raises PreconditionFailed."""
    check_match(request, snapshot.etag)
    if is_known(request, snapshot.etag):
        return web.Response(status=304, headers={"ETag": snapshot.etag, **NO_CACHE})
    return _answer(snapshot)
