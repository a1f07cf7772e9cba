"""Why a job waits, runs or has ended: its situation, gathered and explained as reasons."""

from aiohttp import web

from eventjobs.attempts.limiter import LimitKind
from eventjobs.auth.policy import Action
from eventjobs.auth.principals import Principal
from eventjobs.commands.access import mask_for, permits_id
from eventjobs.domain.job import Job, Status
from eventjobs.domain.recorded import Recorded
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.current_job import current_snapshot
from eventjobs.http.pauses import current_pauses
from eventjobs.http.requests import path_id, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.projections.explanation import (
    FullLimit,
    QueueSituation,
    RateReached,
    Reason,
    explain_ended,
    explain_imported,
    explain_queued,
    explain_running,
)
from eventjobs.service import Service

#: Parents of parents that are looked up.
ANCESTORS_MAX = 100


async def get(context: AppContext, request: web.Request) -> web.StreamResponse:
    """What a job waits for, who runs it, or what ended it: each reason with a stable code."""
    service = context.service
    job = (await current_snapshot(context, await path_id(service, request))).job
    await views_caught_up(service)
    principal = principal_of(request)
    mask = await mask_for(service.jobs, principal, job)
    events: list[Recorded] = []
    if job.status != Status.QUEUED or job.error is not None:
        events = await service.log.read_job(job.job_id)
    if mask is not None:  # also before parts of it are cut
        events = [mask.event(each) for each in events]
    reasons = await _reasons(service, principal, job, events)
    if mask is not None:
        reasons = [mask.fields(each) for each in reasons]
    return reply({"job_id": job.job_id, "status": job.status, "reasons": reasons})


async def _reasons(
    service: Service, principal: Principal, job: Job, events: list[Recorded]
) -> list[Reason]:
    if job.imported is not None:
        return explain_imported(job)
    if job.status == Status.QUEUED:
        return explain_queued(job, await _situation(service, principal, job), events)
    if job.finished:
        return explain_ended(job, events)
    silent_s = service.leases.silence_s(job.job_id)
    heard_us = None if silent_s is None else service.clock.now_us() - int(silent_s * 1e6)
    return explain_running(job, events, heard_us, silent_s)


async def _situation(service: Service, principal: Principal, job: Job) -> QueueSituation:
    type = job.spec.type
    claims = service.claims
    pauses = await current_pauses(service)
    key = job.spec.concurrency_key
    now_us = service.clock.now_us()
    breakers = await service.views.breakers() if job.error is not None else []
    return QueueSituation(
        now_us=now_us,
        open_breakers={
            each.name: each.until_us
            for each in breakers
            if each.until_us is not None and each.until_us > now_us
        },
        unmet=await service.views.unmet_dependencies(job.job_id) if job.spec.after else (),
        type_pause=pauses["type"].get(type),
        queue_pause=pauses["queue"].get(job.queue),
        key_full=None if key is None else await _limit_reached(service, principal, job, "key", key),
        type_full=await _limit_reached(service, principal, job, "type", type),
        queue_full=await _limit_reached(service, principal, job, "queue", job.queue),
        rate=_rate_reached(service, type),
        last_claim_us=claims.last_requested_us.get(type),
        started_us=claims.opened_us,
        claim_waits=claims.waiters.has_capacity_for(type, child=job.spec.parent is not None),
    )


async def _limit_reached(
    service: Service, principal: Principal, job: Job, kind: LimitKind, name: str
) -> FullLimit | None:
    limit, holders = service.limiter.slots_of(kind, name, job.spec.type)
    if limit is None or len(holders) < limit or job.job_id in holders:
        return None
    since: list[tuple[str, int | None]] = []
    for each in holders:
        if not await permits_id(service.jobs, principal, Action.READ, each):
            continue
        view = await service.views.job(each)
        runs = view is not None and view.job.status == Status.RUNNING
        since.append((each, view.job.started_us if view is not None and runs else None))
    # Running jobs, the longest first; then jobs that are just being claimed.
    since.sort(key=lambda each: (each[1] is None, each[1], each[0]))
    ancestors = [each for each in await _ancestors(service, job) if each in holders]
    return FullLimit(limit, since, ancestors, len(holders) - len(since))


async def _ancestors(service: Service, job: Job) -> list[str]:
    """The job's parent, the parent's parent, and so on."""
    ancestors: list[str] = []
    parent = job.spec.parent
    while parent is not None and len(ancestors) < ANCESTORS_MAX:
        ancestors.append(parent)
        view = await service.views.job(parent)
        parent = None if view is None else view.job.spec.parent
    return ancestors


def _rate_reached(service: Service, type: str) -> RateReached | None:
    rate = service.limiter.limits.rates.get(type)
    opens_s = service.limiter.rate_opens_s(type)
    if rate is None or opens_s == 0:
        return None
    now_us = service.clock.now_us()
    return RateReached(str(rate), None if opens_s is None else now_us + round(opens_s * 1e6))
