"""What external services report on the jobs that were given to them."""

import re
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventjobs.dispatch import ErrorCode
from eventjobs.errors import InvalidInput
from eventjobs.fence import End, Holder
from eventjobs.http.api import JSON, path_id
from eventjobs.http.body import read_json
from eventjobs.http.problem import BadToken
from eventjobs.http.reported import Progress, Text
from eventjobs.http.route import Site
from eventjobs.outcomes import Failed, Succeeded

_BEARER = re.compile(r"(?i:bearer) +(\S+)")


class CallbackError(BaseModel):
    """What went wrong: *code* for programs, *message* for people, *details* for operators."""

    model_config = ConfigDict(extra="forbid", strict=True)

    code: ErrorCode
    message: Text = ""
    retryable: bool = True
    details: Any = None


class Callback(BaseModel):
    """Progress, or the end of an attempt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    attempt: int | None = Field(None, description="the token's, if it is given")
    progress: Progress | None = None
    status: Literal["completed", "failed"] | None = None
    result: Any = None
    error: CallbackError | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Callback":
        if (self.progress is None) == (self.status is None):
            raise ValueError("give progress or status, one of them")
        if (self.status == "failed") != (self.error is not None):
            raise ValueError("an error belongs to the status failed, and the status to an error")
        if self.status != "completed" and "result" in self.model_fields_set:
            raise ValueError("a result belongs to the status completed")
        return self

    def outcome(self) -> Succeeded | Failed:
        if (error := self.error) is None:
            return Succeeded(self.result)
        return Failed(error.code, error.message, error.retryable, error.details)


async def report(site: Site, request: web.Request) -> web.StreamResponse:
    """Report on an attempt that was dispatched to you: with its token, and safe to repeat."""
    service = site.service
    job_id = path_id(request)
    found = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    attempt = service.keys.attempt_of(found[1], job_id) if found else None
    if attempt is None:
        # The same whether there is such a job or not.
        raise BadToken(headers={"WWW-Authenticate": "Bearer"})
    given = await read_json(service, request, Callback)
    if given.attempt not in (None, attempt):
        problem = {"field": "attempt", "message": f"the token is for attempt {attempt}"}
        raise InvalidInput("the body does not fit", [problem])
    holder = Holder(job_id, attempt)
    if (progress := given.progress) is not None:
        taken = await service.fence.report(holder, "progress", [progress.event(attempt)])
    else:
        outcome = given.outcome()
        end: End = "complete" if isinstance(outcome, Succeeded) else "fail"
        taken = await service.fence.settle(holder, end, outcome)
    body = {
        "job_id": job_id,
        "attempt": attempt,
        "status": taken.job.status,
        "repeated": taken.repeated,
        "cancel_requested": taken.job.cancel_requested_us is not None,
    }
    return web.Response(body=orjson.dumps(body), headers=JSON)
