"""What external services report on the jobs that were given to them."""

import re

import orjson
from aiohttp import web

from eventjobs.attempts.fencing import End
from eventjobs.domain.outcomes import AttemptHolder, Succeeded
from eventjobs.errors import InvalidInput
from eventjobs.http.app_context import AppContext
from eventjobs.http.problem import BadToken
from eventjobs.http.request_body import read_json
from eventjobs.http.requests import path_id
from eventjobs.http.responses import JSON
from eventjobs.http.schemas.callbacks import Callback

_BEARER = re.compile(r"(?i:bearer) +(\S+)")


async def report(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Report on an attempt that was dispatched to you: with its token, and safe to repeat."""
    service = site.service
    job_id = path_id(request)
    found = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    attempt = service.master_key.attempt_of(found[1], job_id) if found else None
    if attempt is None:
        # The same whether there is such a job or not.
        raise BadToken(headers={"WWW-Authenticate": "Bearer"})
    given = await read_json(service, request, Callback)
    if given.attempt not in (None, attempt):
        problem = {"field": "attempt", "message": f"the token is for attempt {attempt}"}
        raise InvalidInput("the body does not fit", [problem])
    holder = AttemptHolder(job_id, attempt)
    if (progress := given.progress) is not None:
        taken = await service.attempt_reports.report(holder, "progress", [progress.event(attempt)])
    else:
        outcome = given.outcome()
        end: End = "complete" if isinstance(outcome, Succeeded) else "fail"
        taken = await service.attempt_reports.record_outcome(holder, end, outcome)
    body = {
        "job_id": job_id,
        "attempt": attempt,
        "status": taken.job.status,
        "repeated": taken.repeated,
        "cancel_requested": taken.job.cancel_requested_us is not None,
    }
    return web.Response(body=orjson.dumps(body), headers=JSON)
