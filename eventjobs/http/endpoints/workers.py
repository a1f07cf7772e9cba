"""Work for workers elsewhere: claiming jobs, and reporting what becomes of them."""

import asyncio
from typing import Any

import orjson
from aiohttp import web

from eventjobs.attempts.fencing import End, ReportResult
from eventjobs.attempts.local_source import step_results
from eventjobs.attempts.remote_claims import ClaimRequest
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import ArtifactStored, BreakerChanged, LogWritten, StepCompleted
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import AttemptHolder, Cancelled, Failed, Outcome, Released, Succeeded
from eventjobs.errors import EventjobsError
from eventjobs.execution.source import Capacity
from eventjobs.http import problem
from eventjobs.http.app_context import AppContext
from eventjobs.http.problem import NotReady, RouteNotFound
from eventjobs.http.protocol import connection_of
from eventjobs.http.render import render
from eventjobs.http.request_body import read_json, read_report
from eventjobs.http.requests import existing_id, path_id, views_caught_up
from eventjobs.http.responses import JSON, reply
from eventjobs.http.schemas.workers import (
    DIGITS_MAX,
    ArtifactReport,
    BreakerReport,
    Claim,
    CompletedJob,
    Completion,
    Completions,
    Failure,
    LogReport,
    ProgressByWorker,
    Release,
    StepReport,
    WorkerReport,
)
from eventjobs.projections.views import JobView
from eventjobs.storable import FIELDS_BYTES_MAX, bounded_json


async def claim(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Take up to `max` jobs of these types, waiting for the first one for up to `wait_s` seconds.

    A claim that does not wait also ends the wait of an earlier one by the same worker.
    """
    service = site.service
    asked = await read_json(service, request, Claim)
    for each in asked.types:
        service.handlers.get(each)  # raises UnknownType

    if not service.recovered:
        raise NotReady
    if asked.wait_s == 0 or service.views.failing is not None:
        await views_caught_up(service)

    def gone() -> bool:
        transport = request.transport
        # A job must not go to a worker that may be dead: one that ended its side gets none.
        ended = connection_of(request).input_ended
        return ended or transport is None or transport.is_closing()

    jobs = await site.takers.claim(_request(asked, service.settings.lease_s), gone)
    told = [_work(job, await step_results(service.jobs, job)) for job in jobs]
    return web.Response(body=orjson.dumps({"jobs": told}), headers=JSON)


def _request(claim: Claim, lease_s: float) -> ClaimRequest:
    types = set(claim.types)
    capacities = []
    for limit in claim.limits:
        limited = types.intersection(limit.types)
        capacities.append(Capacity(limited, limit.max, children_only=claim.children_only))
        types.difference_update(limit.types)
    capacities.append(Capacity(types, claim.max, children_only=claim.children_only))
    held = None if claim.holds is None else set(claim.holds)
    lease_s = claim.lease_s or lease_s
    return ClaimRequest(claim.worker, capacities, claim.max, claim.wait_s, lease_s, held)


def _work(job: Job, steps: dict[str, Any]) -> dict[str, Any]:
    """A job as its worker gets it."""
    told = render(JobView(job, None, None))
    done = [{**each, "result": steps[each["name"]]} for each in told["steps"]]
    return told | {"lease_s": job.lease_s, "steps": done}


async def heartbeat(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Renew the lease. The answer says whether to stop, and why."""
    given = await read_report(site.service, request, WorkerReport)
    return _told(await site.service.attempt_reports.heartbeat(_holder(request, given)))


async def progress(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Tell how far the whole job is. Renews the lease, as every report does."""
    given = await read_report(site.service, request, ProgressByWorker)
    holder = _holder(request, given)
    return await _report(site, holder, "progress", [given.event(holder.attempt)])


async def log(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Add lines to the job's own log."""
    given = await read_report(site.service, request, LogReport)
    holder = _holder(request, given)
    lines: list[Report] = [
        LogWritten(
            holder.attempt, each.level, each.message, bounded_json(each.fields, FIELDS_BYTES_MAX)
        )
        for each in given.lines
    ]
    return await _report(site, holder, "log", lines)


async def step(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Store the result of a step, which a later attempt finds in `steps` and need not repeat."""
    given = await read_report(site.service, request, StepReport)
    holder = _holder(request, given)
    done = StepCompleted(holder.attempt, given.name, given.number, given.result, given.was)
    return await _report(site, holder, "step", [done])


async def artifact(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Make an uploaded file one of the job's, in place of one with the same name."""
    service = site.service
    given = await read_report(service, request, ArtifactReport)
    holder = _holder(request, given)
    [found] = await service.attached({given.name: given.sha256})
    kept = (given.name, given.sha256, found.size, given.media_type)
    return await _report(site, holder, "artifact", [ArtifactStored(holder.attempt, *kept)])


async def breaker(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Tell that a call of this job opened, or closed, a circuit breaker."""
    given = await read_report(site.service, request, BreakerReport)
    holder = _holder(request, given)
    changed = BreakerChanged(
        holder.attempt, given.name, given.state, given.failures, given.until_us
    )
    return await _report(site, holder, "breaker", [changed])


async def complete(site: AppContext, request: web.Request) -> web.StreamResponse:
    """The job is done. Like every report of an end, harmless to repeat: the first one counts."""
    given = await read_report(site.service, request, Completion)
    outcome = Succeeded(given.result, given.issues)
    return await _settle(site, _holder(request, given), "complete", outcome)


async def complete_several(site: AppContext, request: web.Request) -> web.StreamResponse:
    """These jobs are done, as many `complete` would say it; an outcome for each, in order.

    One that is refused is no reason to refuse another.
    """
    # One by one they may be larger: a worker whose jobs are refused together says them so.
    given = await read_json(site.service, request, Completions)
    outcomes = [_completed(site, given.worker, each) for each in given.jobs]
    return reply({"jobs": await asyncio.gather(*outcomes)})


async def _completed(site: AppContext, worker: str, done: CompletedJob) -> dict[str, Any]:
    outcome = {"job_id": done.job_id, "attempt": done.attempt, "status": 200, "error": None}
    try:
        holder = AttemptHolder(existing_id(done.job_id), done.attempt, worker)
        await site.service.attempt_reports.record_outcome(
            holder, "complete", Succeeded(done.result, done.issues)
        )
    except EventjobsError as error:
        told = problem.members(error)
        return outcome | {"status": told["status"], "error": told}
    return outcome


async def fail(site: AppContext, request: web.Request) -> web.StreamResponse:
    """The attempt failed; the job is tried again later, if it may."""
    given = await read_report(site.service, request, Failure)
    outcome = Failed(given.code, given.message, given.retryable, given.details, given.retry_after_s)
    return await _settle(site, _holder(request, given), "fail", outcome)


async def cancelled(site: AppContext, request: web.Request) -> web.StreamResponse:
    """The attempt has stopped, as it was told to."""
    given = await read_report(site.service, request, WorkerReport)
    return await _settle(site, _holder(request, given), "cancelled", Cancelled())


async def release(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Give the job back unfinished: it runs again at once, and the attempt does not count."""
    given = await read_report(site.service, request, Release)
    return await _settle(site, _holder(request, given), "release", Released(given.reason))


# --- what they share


def _holder(request: web.Request, given: WorkerReport) -> AttemptHolder:
    """Raises RouteNotFound, JobNotFound."""
    number = request.match_info["attempt"]
    if not (number.isascii() and number.isdigit() and len(number) <= DIGITS_MAX):
        raise RouteNotFound
    return AttemptHolder(path_id(request), int(number), given.worker)


async def _report(
    site: AppContext, holder: AttemptHolder, kind: str, reports: list[Report]
) -> web.StreamResponse:
    return _told(await site.service.attempt_reports.report(holder, kind, reports))


async def _settle(
    site: AppContext, holder: AttemptHolder, end: End, outcome: Outcome
) -> web.StreamResponse:
    await site.service.attempt_reports.record_outcome(holder, end, outcome)
    return reply({})


def _told(taken: ReportResult) -> web.StreamResponse:
    stop, lease_s = taken.stop, taken.job.lease_s
    return reply({"cancel": stop is not None, "reason": stop, "lease_s": lease_s})
