"""Uploads at `/api/upload`, a path that two front ends share: a file becomes a job."""

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.errors import OwnerBytesLimit, TooLarge
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of, uploader_of
from eventjobs.http.dialects.dialect import dialect_route
from eventjobs.http.dialects.file_types import name_tags, safe_name
from eventjobs.http.dialects.job_ids import prefixed_id
from eventjobs.http.dialects.jobs import submit
from eventjobs.http.dialects.times import seconds
from eventjobs.http.dialects.upload_form import UploadForm
from eventjobs.http.request_errors import (
    BadForm,
    FileDamaged,
    FileEmpty,
    FileMissing,
    FileProtected,
)
from eventjobs.http.responses import reply
from eventjobs.http.routing import RequestSpec, ResponseSpec
from eventjobs.http.schemas.response_model import ResponseModel


class UploadedJob(ResponseModel):
    """The ids are those of one job, in the forms of both front ends."""

    jobId: str  # noqa: N815  the names that the front ends have
    job_id: str
    status: str
    createdAt: str  # noqa: N815
    poll_url: str


async def upload(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Upload a file, which a job analyzes. Other fields of the form are its payload."""
    service = context.service
    type = service.settings.upload_type
    service.handlers.get(type)  # an unknown type is refused before the file is stored
    form = UploadForm(service, request)
    sha256, _ = await service.uploads.receive(uploader_of(principal_of(request)), form.content())
    artifacts = {safe_name(form.file_name): sha256}
    tags = name_tags(form.file_name)
    job = await submit(context, request, type, form.fields, artifacts=artifacts, tags=tags)
    job_id = prefixed_id(job.job_id)
    path = "jobs" if "002" in context.dialects else "job-status"
    return reply(
        {
            "jobId": job_id,
            "job_id": job.job_id,
            "status": "submitted",
            "createdAt": seconds(job.created_us),
            "poll_url": f"/api/{path}/{job_id}",
        }
    )


ROUTE = dialect_route(
    "POST",
    "/api/upload",
    Action.SUBMIT,
    upload,
    RequestSpec(None, "multipart/form-data"),
    (
        ResponseSpec(200, "the job is in the log", UploadedJob, "application/json"),
        BadForm,
        FileMissing,
        FileEmpty,
        FileDamaged,
        FileProtected,
        TooLarge,
        OwnerBytesLimit,
    ),
)
