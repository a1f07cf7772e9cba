"""Reports of external services on the attempts that were dispatched to them."""

import re

from aiohttp import web

from eventjobs.attempts.fencing import End
from eventjobs.domain.outcomes import AttemptHolder, Succeeded
from eventjobs.errors import InvalidInput
from eventjobs.http.app_context import AppContext
from eventjobs.http.json_body import read_json
from eventjobs.http.request_errors import BadToken
from eventjobs.http.requests import parse_job_id
from eventjobs.http.responses import reply
from eventjobs.http.schemas.callbacks import Callback

_BEARER = re.compile(r"(?i:bearer) +(\S+)")


async def report(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report on an attempt that was dispatched to you, with its token. Safe to repeat."""
    service = context.service
    job_id = parse_job_id(request.match_info["id"])
    bearer = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    attempt = service.master_key.attempt_of(bearer[1], job_id) if bearer else None
    if attempt is None:
        # The same error whether the job exists or not.
        raise BadToken(headers={"WWW-Authenticate": "Bearer"})
    callback = await read_json(service, request, Callback)
    if callback.attempt not in (None, attempt):
        field_error = {"field": "attempt", "message": f"the token is for attempt {attempt}"}
        raise InvalidInput("the body does not fit", [field_error])
    holder = AttemptHolder(job_id, attempt)
    if (progress := callback.progress) is not None:
        result = await service.attempt_reports.report(holder, "progress", [progress.event(attempt)])
    else:
        outcome = callback.outcome()
        end: End = "complete" if isinstance(outcome, Succeeded) else "fail"
        result = await service.attempt_reports.record_outcome(holder, end, outcome)
    body = {
        "job_id": job_id,
        "attempt": attempt,
        "status": result.job.status,
        "repeated": result.is_repeat,
        "cancel_requested": result.job.cancel_requested_us is not None,
    }
    return reply(body)
