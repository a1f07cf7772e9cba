"""The facts over HTTP: a page after a position, the same awaited, and one job's history."""

from typing import NamedTuple

from aiohttp import web

from eventjobs.domain.events import LogWritten
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobGone, JobNotFound, JobUnreadable
from eventjobs.http.app_context import AppContext
from eventjobs.http.headers import wants_stream
from eventjobs.http.problem import BadCursor
from eventjobs.http.requests import path_id, read_query
from eventjobs.http.responses import JSON
from eventjobs.http.schemas.queries import AllEventsQuery, EventsQuery
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.service import Service

#: Events looked through for one page of a filtered log; then the page ends, and says where.
LOOKED_THROUGH_MAX = 10_000


class Page(NamedTuple):
    """Facts, and the position to go on from; *end* says that there will be no more."""

    events: list[Recorded]
    next: int
    end: bool = False


async def job_events(site: AppContext, request: web.Request) -> web.StreamResponse:
    """One job's facts after a position: a page, awaited with `wait`, or as a stream."""
    job_id = path_id(request)
    query = read_query(request, EventsQuery)
    if wants_stream(request):
        selection = JobFilter(ids=frozenset({job_id}))
        return await site.streams.events(request, selection, query.after)
    service = site.service
    after = _after(query, service.log)
    limit = min(query.limit, service.settings.page_max)

    async def look() -> Page | None:
        job = await _there(service, job_id)
        events = await service.log.read_job(job_id, after, limit)
        last = events[-1].position if events else after
        # What came after *job* was read may have queued it again.
        ended = job.finished and (last == job.position or not events)
        return Page(events, last, ended) if events or ended else None

    page = await site.polls.wait_until(look, query.wait, job_id)
    return _reply(page or Page([], after), service.log)


async def logs(site: AppContext, request: web.Request) -> web.StreamResponse:
    """The lines of one job's log after a position: a page, awaited with `wait`, or as a stream."""
    job_id = path_id(request)
    query = read_query(request, EventsQuery)
    if wants_stream(request):
        selection = JobFilter(ids=frozenset({job_id}), logs=True)
        return await site.streams.events(request, selection, query.after)
    service = site.service
    limit = min(query.limit, service.settings.page_max)
    seen = _after(query, service.log)

    async def look() -> Page | None:
        nonlocal seen
        job = await _there(service, job_id)
        lines, seen, all_read = await _lines(service.log, job_id, seen, limit)
        ended = all_read and job.finished and seen >= job.position
        return Page(lines, seen, ended) if lines or ended or not all_read else None

    page = await site.polls.wait_until(look, query.wait, job_id)
    return _reply(page or Page([], seen), service.log)


async def _lines(
    log: EventLog, job_id: str, after: int, limit: int
) -> tuple[list[Recorded], int, bool]:
    """Lines, the position to go on from, and whether nothing is left, or else it was enough."""
    lines: list[Recorded] = []
    for _ in range(LOOKED_THROUGH_MAX // PAGE_MAX):
        events = await log.read_job(job_id, after, PAGE_MAX)
        for each in events:
            after = each.position
            if isinstance(each.event, LogWritten):
                lines.append(each)
            if len(lines) == limit:
                return lines, after, each is events[-1] and len(events) < PAGE_MAX
        if len(events) < PAGE_MAX:
            return lines, after, True
    return lines, after, False


async def events(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Everybody's facts after a position: a page, awaited with `wait`, or as a stream."""
    query = read_query(request, AllEventsQuery)
    service = site.service
    selection = query.selection(service.settings.ids_max)
    if wants_stream(request):
        return await site.streams.events(request, selection, query.after)
    limit = min(query.limit, service.settings.page_max)
    seen = _after(query, service.log)

    async def look() -> Page | None:
        nonlocal seen
        begun = seen
        page = await _page(service, selection, seen, limit)
        seen = page.next
        return page if page.events or seen - begun >= LOOKED_THROUGH_MAX else None

    page = await site.polls.wait_until(look, query.wait)
    return _reply(page or Page([], seen), service.log)


def _after(query: EventsQuery, log: EventLog) -> int:
    """Raises BadCursor for a position that this log has not reached."""
    after = query.after or 0
    if after > log.head:
        raise BadCursor(f"position {after} is after the newest, {log.head}: was it another log?")
    return after


async def _there(service: Service, job_id: str) -> Job:
    """Raises JobNotFound, JobGone; JobUnreadable where not even its first event can be read."""
    try:
        job = await service.jobs.load_newest(job_id)
    except JobUnreadable:
        if (parked := await service.jobs.load_even_parked(job_id)) is None:
            raise
        return parked  # whoever looks for what is wrong with it looks here
    if job is None:
        raise JobNotFound
    if job.expired_us is not None:
        raise JobGone(expired_us=job.expired_us)
    return job


async def _page(service: Service, selection: JobFilter, after: int, limit: int) -> Page:
    log = service.log
    if selection.matches_everything:
        events = await log.read(after, limit)
        return Page(events, events[-1].position if events else after)
    if selection.ids is not None:
        return await _named(service, selection, after, limit)
    found: list[Recorded] = []
    until = after + LOOKED_THROUGH_MAX
    while after < min(until, log.head):
        batch = await log.read(after, service.settings.page_max)
        jobs = {
            each: await service.jobs.load_even_parked(each) for each in {r.job_id for r in batch}
        }
        for each in batch:
            after = each.position
            if selection.matches(jobs[each.job_id]):
                found.append(each)
                if len(found) == limit:
                    return Page(found, after)
    return Page(found, after)


async def _named(service: Service, selection: JobFilter, after: int, limit: int) -> Page:
    """Of a few jobs among many, each is read by itself."""
    head = service.log.head
    found: list[Recorded] = []
    for job_id in selection.ids or ():
        if selection.matches(await _there(service, job_id)):
            found += await service.log.read_job(job_id, after, limit)
    found.sort(key=lambda each: each.position)
    # Above the head of before, those that were read first may miss some.
    found = [each for each in found[:limit] if each.position <= head]
    return Page(found, found[-1].position if len(found) == limit else head)


def _reply(page: Page, log: EventLog) -> web.Response:
    body = b'{"events":[%b],"next":%d,"head":%d,"end":%b}' % (
        b",".join([each.json() for each in page.events]),
        page.next,
        log.head,
        b"true" if page.end else b"false",
    )
    return web.Response(body=body, headers=JSON)
