"""The front end of jobs `job_…`: the command to cancel, and the file of a job that has ended."""

from aiohttp import web
from pydantic import BaseModel, Field

from eventjobs.auth.policy import Action
from eventjobs.errors import WrongState
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.dialects import job_status, upload
from eventjobs.http.dialects.dialect import Dialect, dialect_route
from eventjobs.http.dialects.job_ids import prefixed_id, uuid_of
from eventjobs.http.dialects.jobs import check_access, find_view
from eventjobs.http.dialects.prefixed_status import (
    cancelled_at,
    is_large_result,
    render_error_file,
    status_of,
)
from eventjobs.http.json_body import read_json
from eventjobs.http.problem import CODE
from eventjobs.http.request_errors import ArtifactNotFound, RequestError
from eventjobs.http.requests import read_query, require_job
from eventjobs.http.responses import reply
from eventjobs.http.routing import RequestSpec, ResponseSpec
from eventjobs.http.schemas.response_model import ResponseModel

JSON = "application/json"


class MissingJobId(RequestError, code="missing_job_id", status=400):
    """Missing jobId: give it as ?jobId= or as JSON"""


class AmbiguousJobId(RequestError, code="ambiguous_job_id", status=400):
    """The jobId of the query is not the one of the body"""


class JobToCancel(BaseModel):
    """The job to cancel, in the query or in the body."""

    job_id: str | None = Field(None, alias="jobId")


class Cancellation(ResponseModel):
    job_id: str = Field(alias="jobId")
    status: str
    cancelled_at: str = Field(alias="cancelledAt")
    message: str | None = Field(None, description="of a repeated request")


class NotCancelled(ResponseModel):
    error: str
    job_id: str = Field(alias="jobId")
    status: str


class ErrorFile(ResponseModel):
    job_id: str = Field(alias="jobId")
    status: str
    error: str
    message: str
    timestamp: str


async def cancel(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Cancel a job, by `?jobId=` or by JSON. Repeated, it keeps the time of the first request."""
    job_id = await _job_to_cancel(context, request)
    await check_access(context, request, job_id, Action.CONTROL)
    jobs = context.service.jobs
    try:
        result = await jobs.cancel(job_id, actor=principal_of(request).name)
    except WrongState:
        status = status_of(require_job(await jobs.current(job_id)))
        error = f"Cannot cancel job with status '{status}'"
        body = {"error": error, "jobId": prefixed_id(job_id), "status": status}
        refused = reply(body, 409)
        refused[CODE] = WrongState.code  # for the log
        return refused
    repeated = {} if result.changed else {"message": "Job was already cancelled"}
    return reply(
        {
            "jobId": prefixed_id(job_id),
            "status": status_of(result.job),
            **repeated,
            "cancelledAt": cancelled_at(result.job),
        }
    )


async def _job_to_cancel(context: AppContext, request: web.Request) -> str:
    """The UUID of the job. Raises MissingJobId, AmbiguousJobId, JobNotFound."""
    named = {read_query(request, JobToCancel).job_id}
    if request.can_read_body:
        named.add((await read_json(context.service, request, JobToCancel)).job_id)
    named -= {None, ""}
    if len(named) > 1:
        raise AmbiguousJobId
    for text in named:
        assert text is not None
        return uuid_of(text)
    raise MissingJobId


async def result_file(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The result of a completed job. One that is an artifact is served as an artifact."""
    job = (await find_view(context, request, uuid_of(request.match_info["id"]))).job
    if job.status != "completed" or is_large_result(job):
        raise ArtifactNotFound
    return reply(job.result)


async def error_file(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The error of a failed job."""
    job = (await find_view(context, request, uuid_of(request.match_info["id"]))).job
    if (body := render_error_file(job)) is None:
        raise ArtifactNotFound
    return reply(body)


DIALECT = Dialect(
    "004",
    (
        job_status.ROUTE,
        upload.ROUTE,
        dialect_route(
            "POST",
            "/api/cancel",
            Action.CONTROL,
            cancel,
            RequestSpec(JobToCancel, JSON, optional=True, query=JobToCancel),
            (
                ResponseSpec(200, "cancelled, or asked to stop", Cancellation, JSON),
                ResponseSpec(409, "the job has ended", NotCancelled, JSON),
            ),
        ),
        dialect_route(
            "GET",
            "/api/results/{id}/result.json",
            Action.READ,
            result_file,
            RequestSpec(),
            (ResponseSpec(200, "the result", None, JSON),),
        ),
        dialect_route(
            "GET",
            "/api/results/{id}/error.json",
            Action.READ,
            error_file,
            RequestSpec(),
            (ResponseSpec(200, "the error", ErrorFile, JSON),),
        ),
    ),
)
