"""Claims of jobs by remote workers."""

from typing import Any

from aiohttp import web

from eventjobs.attempts.local_source import step_results
from eventjobs.attempts.remote_claims import ClaimRequest
from eventjobs.auth.policy import may_claim
from eventjobs.domain.job import Job
from eventjobs.execution.source import Capacity
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.json_body import read_json
from eventjobs.http.protocol import connection_of
from eventjobs.http.render import render
from eventjobs.http.request_errors import Forbidden, NotReady
from eventjobs.http.requests import views_caught_up
from eventjobs.http.responses import reply
from eventjobs.http.schemas.claims import Claim
from eventjobs.projections import JobView


async def claim(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Claim up to `max` jobs of these types, waiting up to `wait_s` seconds for the first one.

    A claim that does not wait also ends the wait of an earlier claim by the same worker.
    """
    service = context.service
    claim = await read_json(service, request, Claim)
    principal = principal_of(request)
    for each in claim.types:
        if not may_claim(principal, each):
            raise Forbidden(f"this credential does not permit to claim jobs of type {each!r}")
        service.handlers.get(each)  # raises UnknownType

    if not service.recovered:
        raise NotReady
    if claim.wait_s == 0 or service.views.failing is not None:
        await views_caught_up(service)

    def is_gone() -> bool:
        transport = request.transport
        # A worker that has ended its side of the connection may be dead: it gets no job.
        ended = connection_of(request).input_ended
        if ended or transport is None or transport.is_closing():
            return True
        return not service.credentials.is_valid(principal)

    worker = principal.worker_name(claim.worker)
    claim_request = _claim_request(claim, worker, service.settings.lease_s)
    with context.owner_polls.hold(principal, waits=claim.wait_s > 0):
        jobs = await context.remote_claims.claim(claim_request, is_gone)
    bodies = [_render(job, await step_results(service.jobs, job)) for job in jobs]
    return reply({"jobs": bodies})


def _claim_request(claim: Claim, worker: str, default_lease_s: float) -> ClaimRequest:
    types = set(claim.types)
    capacities = []
    for limit in claim.limits:
        limited = types.intersection(limit.types)
        capacities.append(Capacity(limited, limit.max, children_only=claim.children_only))
        types.difference_update(limit.types)
    capacities.append(Capacity(types, claim.max, children_only=claim.children_only))
    held = None if claim.holds is None else set(claim.holds)
    lease_s = claim.lease_s or default_lease_s
    return ClaimRequest(worker, capacities, claim.max, claim.wait_s, lease_s, held)


def _render(job: Job, results: dict[str, Any]) -> dict[str, Any]:
    """A claimed job as JSON, with the *results* of its steps by name."""
    body = render(JobView(job, None, None))
    steps = [{**each, "result": results[each["name"]]} for each in body["steps"]]
    return body | {"lease_s": job.lease_s, "steps": steps, "sensitive": job.spec.sensitive}
