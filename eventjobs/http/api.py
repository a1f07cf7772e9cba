"""Jobs over HTTP: submit, list, read, cancel, retry, delete; and how the service is."""

from contextlib import suppress
from typing import Any

import orjson
from aiohttp import web

from eventjobs import __version__
from eventjobs.claimed import CHILD, read_child
from eventjobs.clock import timeout
from eventjobs.errors import (
    InvalidInput,
    JobGone,
    JobNotFound,
    PreconditionFailed,
    ReservedId,
    WrongState,
)
from eventjobs.http.body import child_limits, read_json, request_limits
from eventjobs.http.headers import (
    check_command,
    check_match,
    is_conditional,
    is_known,
    preference,
    wants_stream,
)
from eventjobs.http.problem import NotReady, RequestError, ViewsBehind
from eventjobs.http.query import JobQuery, JobsQuery, born_of, cursor, read_query, unfit
from eventjobs.http.ready import fits, ready
from eventjobs.http.route import JOB_ID, REQUEST_ID, Site, is_strange
from eventjobs.http.snapshot import Snapshot, etag_of
from eventjobs.http.stream import Selection
from eventjobs.http.submission import Submission, id_of_key, idempotency_key
from eventjobs.identity import child_id, is_reserved
from eventjobs.job import Job
from eventjobs.jobs import Again, Guard, Why, new_id, parse_id
from eventjobs.service import Service
from eventjobs.state import readable
from projections import JobView, Views

#: Who did what came in here: there is no authentication yet.
ACTOR = "http"
#: Answers wait this long for the views to show what was written; then they are a little old.
VIEWS_S = 2.0
#: Events that cannot be read, of which readyz tells more than their number.
PARKED_MAX = 10

NO_CACHE = {"Cache-Control": "no-cache"}
JSON = {"Content-Type": "application/json", **NO_CACHE}


async def submit(site: Site, request: web.Request) -> web.StreamResponse:
    """Submit a job. With an Idempotency-Key it is safe to repeat: one key is one job."""
    key = idempotency_key(request.headers.getall("Idempotency-Key", []))
    given = await read_json(site.service, request, Submission)
    return await _accept(site, request, given, id_of_key(key) if key else None, key=bool(key))


async def put(site: Site, request: web.Request) -> web.StreamResponse:
    """Submit a job under an id of your own, a UUID: safe to repeat."""
    if "Idempotency-Key" in request.headers:
        raise RequestError("the id in the address is the key; leave Idempotency-Key out")
    job_id = parse_id(request.match_info["id"])
    limits = child_limits if CHILD in request.headers else request_limits
    given = await read_json(site.service, request, Submission, limits)
    if is_reserved(job_id):
        job_id = await _child_id(site, request, given, job_id)
    if not is_conditional(request):
        return await _accept(site, request, given, job_id)
    job = await site.service.jobs.current(job_id)
    there = job is not None and job.expired_us is None
    check_command(request, etag_of(job) if job is not None and there else None)
    return await _accept(site, request, given, job_id, new=not there)


async def _child_id(site: Site, request: web.Request, given: Submission, job_id: str) -> str:
    """That of a child whose parent is held by the worker that submits it. Raises ReservedId."""
    if (told := request.headers.get(CHILD)) is None:
        raise ReservedId
    holder, name = read_child(told)
    if given.parent != holder.job_id or job_id != child_id(holder.job_id, name):
        raise ReservedId
    return await site.service.fence.child_id(holder, name)


async def _accept(
    site: Site,
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
    if fits(request):
        return ready(request, 202, headers, body, request[REQUEST_ID], service.clock.now_us())
    return web.Response(status=202, body=body, headers=JSON | headers)


async def get(site: Site, request: web.Request) -> web.StreamResponse:
    """The job as it is now: at once, when it changes (`Prefer: wait`), or as a stream."""
    if wants_stream(request):
        query = read_query(request, JobQuery)
        selection = Selection(ids=frozenset({path_id(request)}))
        return await site.streams.snapshots(request, selection, query.after)
    if "Prefer" in request.headers and "If-None-Match" in request.headers:
        return await _when_changed(site, request)
    return _unless_known(request, await now(site, path_id(request)))


def get_at_once(site: Site, request: web.Request) -> web.StreamResponse | None:
    """The same where nothing has to be waited for; None goes the long way."""
    service = site.service
    headers = request.headers
    if (
        service.views.position < service.log.head
        or "Prefer" in headers
        or "If-Match" in headers
        or wants_stream(request)
        or not fits(request)
        or is_strange(request)
    ):
        return None
    snapshot = site.snapshots.kept(request.match_info["id"])
    if snapshot is None or snapshot.job.expired_us is not None:
        return None
    status, body = 200, snapshot.body
    if is_known(request, snapshot.etag):
        status, body = 304, b""
    told = {"ETag": snapshot.etag, "Vary": "Accept"}
    return ready(request, status, told, body, site.ids.of(request), service.clock.now_us())


async def _when_changed(site: Site, request: web.Request) -> web.Response:
    """Answer once the job is not what the client knows, or time is up."""
    job_id = path_id(request)
    asked = preference(request, "wait") or ""
    wait_s = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else None

    async def look() -> Snapshot | None:
        snapshot = await now(site, job_id)
        check_match(request, snapshot.etag)
        return None if is_known(request, snapshot.etag) else snapshot

    changed = await site.polls.until(look, wait_s or 0, job_id)
    response = _unless_known(request, changed or await now(site, job_id))
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


async def jobs(site: Site, request: web.Request) -> web.StreamResponse:
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
    await caught_up(service)
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


async def counts(site: Site, request: web.Request) -> web.StreamResponse:
    """How many jobs there are by type and status."""
    await caught_up(site.service)
    position = site.service.views.position
    return reply({"counts": await site.service.views.counts(), "position": position})


async def cancel(site: Site, request: web.Request) -> web.StreamResponse:
    """Cancel a job that waits, at once; ask one that runs to stop. Harmless to repeat."""
    why = await reason_of(site, request)
    done = await site.service.jobs.cancel(
        path_id(request), why.reason, actor=ACTOR, guard=_guard(request)
    )
    return _answer(await _current(site, done.job))


async def retry(site: Site, request: web.Request) -> web.StreamResponse:
    """Queue a failed or cancelled job again, with all its attempts: it goes on after the steps
    that are completed, or from a named one, or starts over.
    """
    how = await read_json(site.service, request, Again) if request.can_read_body else Again()
    done = await site.service.jobs.retry(
        path_id(request),
        how.reason,
        from_step=how.from_step,
        restart=how.restart,
        actor=ACTOR,
        guard=_guard(request),
    )
    return _answer(await _current(site, done.job))


async def delete(site: Site, request: web.Request) -> web.StreamResponse:
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


async def rebuild(site: Site, request: web.Request) -> web.StreamResponse:
    """Build the views anew from the log, beside the live ones; answers when they are in place."""
    return reply({"position": await site.service.views.rebuild()})


async def healthz(site: Site, request: web.Request) -> web.StreamResponse:
    """Whether the process lives."""
    return reply({"status": "ok"})


async def readyz(site: Site, request: web.Request) -> web.StreamResponse:
    """Whether the service serves, and how far its views are behind the log."""
    service = site.service
    if not service.ready:
        names = ", ".join(service.failing)
        raise NotReady(
            f"failed and restarted, see the log of the service: {names}" if names else None
        )
    head, views = service.log.head, service.views
    unwritable = await service.log.unwritable()
    return reply(
        {
            "ready": True,
            "version": __version__,
            "log_position": head,
            "views_position": views.position,
            "lag": max(0, head - views.position),
            "running": sum(each.running for each in service.runners),
            "writable": unwritable is None,
            "unwritable": unwritable,
            "views_failing": views.failing,
            "recovered": service.recovered,
            "parked": await _parked(views),
        }
    )


async def _parked(views: Views) -> dict[str, Any] | None:
    """The events that could not be applied, unless the views cannot tell."""
    if views.failing is not None:
        return None
    count, first = await views.parked(PARKED_MAX)
    return {"count": count, "first": [each._asdict() for each in first]}


# --- what they share


def reply(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), headers=JSON)


def path_id(request: web.Request) -> str:
    """The job id of the address. Raises JobNotFound."""
    return existing_id(request.match_info["id"])


def existing_id(text: str) -> str:
    """What is no UUID names no job: raises JobNotFound."""
    try:
        return parse_id(text)
    except InvalidInput as error:
        raise JobNotFound from error


async def caught_up(service: Service) -> None:
    """Return when the views show all that is in the log now: everyone reads their own writes.

    Raises ViewsBehind when that takes long, or something is wrong with the views.
    """
    views = service.views
    if views.failing is not None:
        raise ViewsBehind
    if views.position < (head := service.log.head):
        try:
            async with timeout(service.clock, VIEWS_S):
                await views.reached(head)
        except TimeoutError as error:
            raise ViewsBehind from error


async def reason_of(site: Site, request: web.Request) -> Why:
    """Of a command that may have a body. Raises as *read_json*."""
    return await read_json(site.service, request, Why) if request.can_read_body else Why()


async def _current(site: Site, job: Job) -> Snapshot:
    """*job*, or what it is by now, as the views show it. From the log where they cannot."""
    with suppress(ViewsBehind):
        await caught_up(site.service)
        snapshot = await site.snapshots.get(job.job_id)
        if snapshot is not None and snapshot.job.version >= job.version:
            return snapshot
    body = site.snapshots.encode(JobView(job, None, None))
    return Snapshot(job, body, f'"{job.version}"')


async def now(site: Site, job_id: str) -> Snapshot:
    """The job as it is now. Raises JobNotFound, JobUnreadable, JobGone."""
    with suppress(ViewsBehind):
        await caught_up(site.service)
        if (snapshot := await site.snapshots.get(job_id)) is not None:
            return there(snapshot)
    # The views are late, or of no use; or leave out a job whose beginning cannot be read.
    job = await site.service.jobs.current(job_id)
    return there(None if job is None else await _current(site, job))


def there(snapshot: Snapshot | None) -> Snapshot:
    """Raises JobNotFound, JobUnreadable, JobGone."""
    if snapshot is None:
        raise JobNotFound
    if readable(snapshot.job).expired_us is not None:
        raise JobGone(expired_us=snapshot.job.expired_us)
    return snapshot


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
