"""The front end of a "Check Status" button: a text to analyze, and its status by the job's UUID."""

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from eventjobs.auth.policy import Action
from eventjobs.domain.timestamps import naive
from eventjobs.http.app_context import AppContext
from eventjobs.http.dialects import job_pages, job_status
from eventjobs.http.dialects.dialect import Dialect, dialect_route
from eventjobs.http.dialects.jobs import submit
from eventjobs.http.json_body import read_json
from eventjobs.http.responses import reply
from eventjobs.http.routing import RequestSpec, ResponseSpec, Route
from eventjobs.http.schemas.response_model import ResponseModel

JSON = "application/json"


class QueueJob(BaseModel):
    """A text to analyze. Fields that the handler does not know are refused by its model."""

    model_config = ConfigDict(extra="allow")


class QueuedJob(ResponseModel):
    job_id: str
    status: str
    created_at: str


async def queue_job(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Submit a text, which a job analyzes."""
    body = await read_json(context.service, request, QueueJob)
    type = context.service.settings.queue_job_type
    job = await submit(context, request, type, body.model_dump())
    return reply({"job_id": job.job_id, "status": job.status, "created_at": naive(job.created_us)})


async def health(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Whether the service serves."""
    return reply({"status": "healthy" if context.service.ready else "starting"})


class HealthOfService(ResponseModel):
    status: str


QUEUED = ResponseSpec(200, "the job is in the log", QueuedJob, JSON)
HEALTH = ResponseSpec(200, "the service serves", HealthOfService, JSON)

DIALECT = Dialect(
    "000",
    (
        dialect_route(
            "POST",
            "/api/queue-job",
            Action.SUBMIT,
            queue_job,
            RequestSpec(QueueJob, JSON),
            (QUEUED,),
        ),
        job_status.ROUTE,
        *job_pages.ROUTES,
        Route("GET", "/health", None, health, RequestSpec(), (HEALTH,), kind=None),
    ),
)
