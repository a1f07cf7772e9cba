"""Events after a position: as a page, awaited, or as a stream."""

from functools import partial
from typing import NamedTuple

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import Principal
from eventjobs.commands.access import permits_id
from eventjobs.domain.events import LogWritten
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobNotFound
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.current_job import hide_events, require_logged_job
from eventjobs.http.headers import wants_stream
from eventjobs.http.polls import poll
from eventjobs.http.request_errors import BadCursor
from eventjobs.http.requests import path_id, read_query
from eventjobs.http.responses import JSON_HEADERS
from eventjobs.http.schemas.queries import AllEventsQuery, EventsQuery
from eventjobs.http.streams.job_filter import JobFilter, restrict_filter
from eventjobs.http.streams.subscriber import EventWait
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.service import Service

#: Events read for one page of a filtered log. The page then ends before its limit.
EVENTS_READ_MAX = 10_000


class Page(NamedTuple):
    """Events, and the position after which the next page begins. No event follows an *end*."""

    events: list[Recorded]
    next: int
    end: bool = False
    #: Whether so many events were read in vain that the page ends before the head.
    is_cut: bool = False


async def job_events(context: AppContext, request: web.Request) -> web.StreamResponse:
    """One job's events after a position: a page, awaited with `wait`, or as a stream."""
    job_id = await path_id(context.service, request)
    query = read_query(request, EventsQuery)
    if wants_stream(request):
        selection = JobFilter(ids=frozenset({job_id}))
        return await context.streams.events(request, selection, query.after)
    service = context.service
    after = _after(query, service.log)
    limit = min(query.limit, service.settings.page_max)

    async def look() -> Page | None:
        job = await require_logged_job(service, job_id)
        events = await service.log.read_job(job_id, after, limit)
        last = events[-1].position if events else after
        # An event that followed the read of *job* may have queued it again.
        ended = job.is_over and (last == job.position or not events)
        events = await hide_events(context, request, job, events)
        return Page(events, last, ended) if events or ended else None

    wait = partial(service.log.wait, job_id=job_id)
    page = await poll(context, request, look, query.wait, wait)
    return _reply(page or Page([], after), service.log)


async def logs(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The lines of one job's log after a position: a page, awaited with `wait`, or as a stream."""
    job_id = await path_id(context.service, request)
    query = read_query(request, EventsQuery)
    if wants_stream(request):
        selection = JobFilter(ids=frozenset({job_id}), logs=True)
        return await context.streams.events(request, selection, query.after)
    service = context.service
    limit = min(query.limit, service.settings.page_max)
    seen = _after(query, service.log)

    async def look() -> Page | None:
        nonlocal seen
        job = await require_logged_job(service, job_id)
        lines, seen, all_read = await _lines(service.log, job_id, seen, limit)
        ended = all_read and job.is_over and seen >= job.position
        lines = await hide_events(context, request, job, lines)
        return Page(lines, seen, ended) if lines or ended or not all_read else None

    wait = partial(service.log.wait, job_id=job_id)
    page = await poll(context, request, look, query.wait, wait)
    return _reply(page or Page([], seen), service.log)


async def _lines(
    log: EventLog, job_id: str, after: int, limit: int
) -> tuple[list[Recorded], int, bool]:
    """Log lines, the position after the last event read, and whether all events were read."""
    lines: list[Recorded] = []
    for _ in range(EVENTS_READ_MAX // PAGE_MAX):
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


async def events(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Events of all jobs after a position: a page, awaited with `wait`, or as a stream."""
    query = read_query(request, AllEventsQuery)
    service = context.service
    principal = principal_of(request)
    selection = restrict_filter(principal, query.selection(service.settings.ids_max))
    if wants_stream(request):
        return await context.streams.events(request, selection, query.after)
    limit = min(query.limit, service.settings.page_max)
    waiting = EventWait(selection, _after(query, service.log))

    async def look() -> Page | None:
        page = await _page(context, principal, selection, waiting.position, limit)
        waiting.position = page.next
        page = page._replace(events=await context.streams.lookup.hide(selection, page.events))
        return page if page.events or page.is_cut else None

    async def wait(_: int) -> None:
        await context.streams.wait_for_event(waiting)

    page = await poll(context, request, look, query.wait, wait)
    return _reply(page or Page([], waiting.position), service.log)


def _after(query: EventsQuery, log: EventLog) -> int:
    """The position in *query*. Raises BadCursor for one that this log has not reached."""
    after = query.after or 0
    if after > log.head:
        raise BadCursor(f"position {after} is after the newest, {log.head}: was it another log?")
    return after


async def _page(
    context: AppContext, principal: Principal, selection: JobFilter, after: int, limit: int
) -> Page:
    service, log = context.service, context.service.log
    if selection.matches_everything:
        events = await log.read(after, limit)
        return Page(events, events[-1].position if events else after)
    if selection.ids is not None:
        return await _page_of_jobs(service, principal, selection, after, limit)
    selected: list[Recorded] = []
    count = 0
    while after < log.head and count < EVENTS_READ_MAX:
        if log.head - after > PAGE_MAX:  # otherwise they are in memory
            after = await service.views.skip_events(after, selection.type, selection.owner)
        batch = await log.read(after, PAGE_MAX - after % PAGE_MAX)
        count += len(batch)
        jobs = await context.streams.lookup.jobs_of(batch)
        for each in batch:
            after = each.position
            if selection.matches(jobs[each.job_id]):
                selected.append(each)
                if len(selected) == limit:
                    return Page(selected, after)
    return Page(selected, after, is_cut=count >= EVENTS_READ_MAX)


async def _page_of_jobs(
    service: Service, principal: Principal, selection: JobFilter, after: int, limit: int
) -> Page:
    """A page of the events of named jobs, each job read by itself."""
    head = service.log.head
    events: list[Recorded] = []
    for job_id in sorted(selection.ids or ()):
        if not await permits_id(service.jobs, principal, Action.READ, job_id):
            raise JobNotFound
        if selection.matches(await require_logged_job(service, job_id)):
            events += await service.log.read_job(job_id, after, limit)
    events.sort(key=lambda each: each.position)
    # Events above *head* may be missing for the jobs that were read first.
    events = [each for each in events[:limit] if each.position <= head]
    return Page(events, events[-1].position if len(events) == limit else head)


def _reply(page: Page, log: EventLog) -> web.Response:
    body = b'{"events":[%b],"next":%d,"head":%d,"end":%b}' % (
        b",".join([each.json() for each in page.events]),
        page.next,
        log.head,
        b"true" if page.end else b"false",
    )
    return web.Response(body=body, headers=JSON_HEADERS)
