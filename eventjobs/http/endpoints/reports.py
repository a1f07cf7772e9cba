"""Reports of remote workers on their attempts."""

import asyncio
from typing import Any

from aiohttp import web

from eventjobs.attempts.fencing import End, ReportResult
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import ArtifactStored, BreakerChanged, LogWritten, StepCompleted
from eventjobs.domain.outcomes import AttemptHolder, Cancelled, Failed, Outcome, Released, Succeeded
from eventjobs.errors import EventjobsError
from eventjobs.http import problem
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import file_owners, principal_of
from eventjobs.http.json_body import read_json, read_report
from eventjobs.http.request_errors import RouteNotFound
from eventjobs.http.requests import checked_holder, parse_job_id, permitted_files
from eventjobs.http.responses import reply
from eventjobs.http.schemas.reports import (
    DIGITS_MAX,
    ArtifactReport,
    BreakerReport,
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
from eventjobs.storable import FIELDS_BYTES_MAX, bounded_json


async def heartbeat(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Renew the lease. The answer shows whether the attempt has to stop, and the reason."""
    body = await read_report(context.service, request, WorkerReport)
    holder = await _holder(context, request, body)
    return _heartbeat_response(await context.service.attempt_reports.heartbeat(holder))


async def progress(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report the progress of the whole job. Renews the lease, as every report does."""
    body = await read_report(context.service, request, ProgressByWorker)
    holder = await _holder(context, request, body)
    return await _report(context, holder, "progress", [body.event(holder.attempt)])


async def log(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Add lines to the job's own log."""
    body = await read_report(context.service, request, LogReport)
    holder = await _holder(context, request, body)
    lines: list[Report] = [
        LogWritten(
            holder.attempt, each.level, each.message, bounded_json(each.fields, FIELDS_BYTES_MAX)
        )
        for each in body.lines
    ]
    return await _report(context, holder, "log", lines)


async def step(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Store the result of a step. A later attempt finds it in `steps` and need not repeat it."""
    body = await read_report(context.service, request, StepReport)
    holder = await _holder(context, request, body)
    completed = StepCompleted(holder.attempt, body.name, body.number, body.result, body.was)
    return await _report(context, holder, "step", [completed])


async def artifact(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Attach an uploaded file to the job. It replaces an artifact of the same name."""
    service = context.service
    body = await read_report(service, request, ArtifactReport)
    holder = await _holder(context, request, body)
    job = await service.jobs.load(holder.job_id)
    owners = file_owners(principal_of(request), None)
    held = job is not None and job.worker == holder.worker
    if job is not None and held and body.sha256 in {each.sha256 for each in job.artifacts}:
        owners = None  # the job has it already
    [file] = await permitted_files(service, {body.name: body.sha256}, owners)
    stored = ArtifactStored(holder.attempt, body.name, body.sha256, file.size, body.media_type)
    return await _report(context, holder, "artifact", [stored])


async def breaker(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report that a call of this job opened or closed a circuit breaker."""
    body = await read_report(context.service, request, BreakerReport)
    holder = await _holder(context, request, body)
    changed = BreakerChanged(holder.attempt, body.name, body.state, body.failures, body.until_us)
    return await _report(context, holder, "breaker", [changed])


async def complete(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report that the job is completed. Harmless to repeat: the first report of an end counts."""
    body = await read_report(context.service, request, Completion)
    outcome = Succeeded(body.result, body.issues)
    return await _record_outcome(
        context, await _holder(context, request, body), "complete", outcome
    )


async def complete_several(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report that several jobs are completed: an outcome for each, in order.

    The reports are accepted or refused independently.
    """
    # A single report has a larger limit: after a refusal a worker reports jobs one by one.
    body = await read_json(context.service, request, Completions)
    outcomes = [_complete_one(context, request, body.worker, each) for each in body.jobs]
    return reply({"jobs": await asyncio.gather(*outcomes)})


async def _complete_one(
    context: AppContext, request: web.Request, worker: str, completed: CompletedJob
) -> dict[str, Any]:
    outcome = {
        "job_id": completed.job_id,
        "attempt": completed.attempt,
        "status": 200,
        "error": None,
    }
    try:
        holder = AttemptHolder(parse_job_id(completed.job_id), completed.attempt, worker)
        holder = await checked_holder(context.service, request, holder)
        await context.service.attempt_reports.record_outcome(
            holder, "complete", Succeeded(completed.result, completed.issues)
        )
    except EventjobsError as error:
        members = problem.members(error)
        return outcome | {"status": members["status"], "error": members}
    return outcome


async def fail(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report that the attempt failed. The job is retried later if attempts are left."""
    body = await read_report(context.service, request, Failure)
    outcome = Failed(body.code, body.message, body.retryable, body.details, body.retry_after_s)
    return await _record_outcome(context, await _holder(context, request, body), "fail", outcome)


async def confirm_stop(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report that the attempt has stopped, as requested."""
    body = await read_report(context.service, request, WorkerReport)
    return await _record_outcome(
        context, await _holder(context, request, body), "cancelled", Cancelled()
    )


async def release(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Release the job unfinished: it is queued again at once, and the attempt does not count."""
    body = await read_report(context.service, request, Release)
    return await _record_outcome(
        context, await _holder(context, request, body), "release", Released(body.reason)
    )


async def _holder(context: AppContext, request: web.Request, body: WorkerReport) -> AttemptHolder:
    """The attempt in the path and its worker. Raises RouteNotFound, JobNotFound."""
    number = request.match_info["attempt"]
    if not (number.isascii() and number.isdigit() and len(number) <= DIGITS_MAX):
        raise RouteNotFound
    holder = AttemptHolder(parse_job_id(request.match_info["id"]), int(number), body.worker)
    return await checked_holder(context.service, request, holder)


async def _report(
    context: AppContext, holder: AttemptHolder, kind: str, reports: list[Report]
) -> web.StreamResponse:
    return _heartbeat_response(await context.service.attempt_reports.report(holder, kind, reports))


async def _record_outcome(
    context: AppContext, holder: AttemptHolder, end: End, outcome: Outcome
) -> web.StreamResponse:
    await context.service.attempt_reports.record_outcome(holder, end, outcome)
    return reply({})


def _heartbeat_response(result: ReportResult) -> web.StreamResponse:
    stop, lease_s = result.stop, result.job.lease_s
    return reply({"cancel": stop is not None, "reason": stop, "lease_s": lease_s})
