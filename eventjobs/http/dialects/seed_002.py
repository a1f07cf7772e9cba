"""The front end of a processing page: it uploads a file, polls its job, and may retry or cancel it.

Its analysis service reports by callbacks, with the token of the attempt.
"""

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventjobs.auth.policy import Action
from eventjobs.commands.jobs import RetryOptions
from eventjobs.domain.job import Job
from eventjobs.errors import StaleAttempt, WrongState
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.callback_reports import holder_of, record
from eventjobs.http.dialects import jobs_path, upload
from eventjobs.http.dialects.dialect import Dialect, dialect_route
from eventjobs.http.dialects.job_ids import prefixed_id, uuid_of
from eventjobs.http.dialects.jobs import check_access, find_view
from eventjobs.http.dialects.processing_page import OTHER_ERROR, RUNS_MAX, may_retry
from eventjobs.http.json_body import read_json
from eventjobs.http.rate_limits import RequestKind
from eventjobs.http.request_errors import BadToken
from eventjobs.http.responses import reply
from eventjobs.http.routing import Endpoint, RequestSpec, ResponseSpec, Route
from eventjobs.http.schemas.callbacks import Callback, CallbackError
from eventjobs.http.schemas.reports import Progress, Text
from eventjobs.http.schemas.response_model import ResponseModel
from eventjobs.outbound.dispatch_response import ErrorCode

JSON = "application/json"


class UpdateError(BaseModel):
    """A failure: *code* is one of the page, or the service's own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    code: ErrorCode = OTHER_ERROR
    message: Text = ""
    can_retry: bool = Field(True, alias="canRetry", description="false: the job fails at once")
    details: Any = None


class StatusUpdate(BaseModel):
    """A report of the analysis service: what its attempt does, or how it has ended."""

    model_config = ConfigDict(extra="forbid", strict=True)

    attempt: int | None = Field(None, description="the attempt of the token; may be left out")
    status: Literal["running", "processing", "completed", "failed"] = "running"
    progress: float | None = Field(None, ge=0, le=100, description="in percent of the whole job")
    stage: str | None = Field(None, max_length=200)
    message: Text | None = None
    result: Any = None
    error: UpdateError | Text | None = None

    @model_validator(mode="after")
    def _one_report(self) -> "StatusUpdate":
        if self.error is not None and self.status != "failed":
            raise ValueError("an error belongs to the status failed")
        if self.status != "completed" and "result" in self.model_fields_set:
            raise ValueError("a result belongs to the status completed")
        return self

    def callback(self) -> Callback:
        """The same report for /v1."""
        if self.status == "completed":
            return Callback(attempt=self.attempt, status="completed", result=self.result)
        if self.status == "failed":
            return Callback(attempt=self.attempt, status="failed", error=self._failure())
        total = None if self.progress is None else 100
        report = Progress(
            done=self.progress, total=total, stage=self.stage, message=self.message, data=None
        )
        return Callback(attempt=self.attempt, progress=report)

    def _failure(self) -> CallbackError:
        error = self.error
        if not isinstance(error, UpdateError):
            error = UpdateError(message=error or self.message or "")
        return CallbackError(
            code=error.code,
            message=error.message,
            retryable=error.can_retry,
            details=error.details,
        )


class Updated(ResponseModel):
    jobId: str  # noqa: N815  the name that the front end has
    job_id: str
    status: str


def _check_runs(job: Job) -> None:
    """Raises WrongState for a job that has had all its runs."""
    if job.can_retry and not may_retry(job):
        raise WrongState(f"this job has been run {RUNS_MAX} times, and may not be run again")


async def retry(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Run a failed job again. A user may run a job three times in all."""
    service, job_id = context.service, uuid_of(request.match_info["id"])
    await check_access(context, request, job_id, Action.CONTROL)
    actor = principal_of(request).name
    await service.submissions.retry(job_id, RetryOptions(), actor=actor, guard=_check_runs)
    return await _changed_job(context, request, job_id)


async def cancel(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Cancel a job, at once if it waits. A running one is asked to stop. Harmless to repeat."""
    job_id = uuid_of(request.match_info["id"])
    await check_access(context, request, job_id, Action.CONTROL)
    await context.service.jobs.cancel(job_id, actor=principal_of(request).name)
    return await _changed_job(context, request, job_id)


async def _changed_job(
    context: AppContext, request: web.Request, job_id: str
) -> web.StreamResponse:
    view = await find_view(context, request, job_id)
    return reply(jobs_path.render(view))


async def callback(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report on an attempt that was dispatched to you, with its token. Safe to repeat."""
    service = context.service
    holder = holder_of(service, request, uuid_of(request.match_info["id"]))
    update = await read_json(service, request, StatusUpdate)
    result = await record(service, holder, update.callback())
    status = jobs_path.status_word(result.job)
    job_id = holder.job_id
    return reply({"jobId": prefixed_id(job_id), "job_id": job_id, "status": status})


def _command(name: str, endpoint: Endpoint) -> Route:
    return dialect_route(
        "POST",
        f"/api/jobs/{{id}}/{name}",
        Action.CONTROL,
        endpoint,
        RequestSpec(),
        (jobs_path.JOB, WrongState),
    )


DIALECT = Dialect(
    "002",
    (
        *jobs_path.ROUTES,
        upload.ROUTE,
        _command("retry", retry),
        _command("cancel", cancel),
        dialect_route(
            "POST",
            "/api/jobs/{id}/callback",
            None,
            callback,
            RequestSpec(StatusUpdate, JSON, headers=("Authorization",)),
            (ResponseSpec(200, "the report is in the log", Updated, JSON), BadToken, StaleAttempt),
            kind=RequestKind.WORK,
        ),
    ),
)
