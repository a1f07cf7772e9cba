"""A job at `/api/jobs/{id}` and `/jobs/{id}`, paths that two front ends share.

One body has the fields of both: none of their names mean two things.
"""

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from eventjobs.auth.policy import Action
from eventjobs.domain.job import Job, Status
from eventjobs.domain.json_fields import fragment_of
from eventjobs.http.app_context import AppContext
from eventjobs.http.dialects.dialect import dialect_route
from eventjobs.http.dialects.error_body import error_text
from eventjobs.http.dialects.job_ids import uuid_of
from eventjobs.http.dialects.jobs import find_view
from eventjobs.http.dialects.processing_page import page_fields
from eventjobs.http.dialects.times import seconds
from eventjobs.http.responses import reply
from eventjobs.http.routing import RequestSpec, ResponseSpec
from eventjobs.projections import JobView

#: These front ends know no cancelled jobs, and would poll one for ever.
_STATUSES = {Status.QUEUED: "pending", Status.CANCELLED: "failed"}


class SharedJob(BaseModel):
    """The job, for the front ends of dialects 002 and 003."""

    model_config = ConfigDict(extra="allow")


def render(view: JobView) -> dict[str, Any]:
    """The job with the fields of both front ends. Null is a value that does not exist yet."""
    job, progress, _ = view
    error = error_text(job)
    over = job.is_over
    return {
        "job_id": job.job_id,
        "job_type": job.spec.type,
        "status": status_word(job),
        "progress": percent(view),
        "progress_message": None if progress is None else progress.message,
        "result": fragment_of(job, "result") if over else None,
        "error": error,
        "created_at": seconds(job.created_us),
        "started_at": seconds(job.started_us),
        "completed_at": seconds(job.finished_us) if over else None,
        **page_fields(view, error),
    }


def status_word(job: Job) -> str:
    """The status of the job in the words of these front ends. They read its records as soon as it
    is completed, so that it is still running until its completion hooks have ended.
    """
    if job.finished and not job.is_over:
        return Status.RUNNING
    return _STATUSES.get(Status(job.status), job.status)


def percent(view: JobView) -> int:
    """The progress in whole percent: 100 only for a completed job."""
    if view.job.status == Status.COMPLETED:
        return 100 if view.job.is_over else 99
    return 0 if view.progress is None else min(99, int(view.progress.fraction * 100))


async def get(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The job as it is now."""
    view = await find_view(context, request, uuid_of(request.match_info["id"]))
    return reply(render(view))


JOB = ResponseSpec(200, "the job", SharedJob, "application/json")
ROUTES = tuple(
    dialect_route(
        "GET",
        path,
        Action.READ,
        get,
        RequestSpec(),
        (JOB,),
    )
    for path in ("/api/jobs/{id}", "/jobs/{id}")
)
