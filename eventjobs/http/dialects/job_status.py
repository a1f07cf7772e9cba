"""The status of a job at `/api/job-status/{id}`, a path that three front ends share."""

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from eventjobs.auth.policy import Action
from eventjobs.domain.job import Status
from eventjobs.domain.json_fields import fragment_of
from eventjobs.domain.timestamps import naive
from eventjobs.http.app_context import AppContext
from eventjobs.http.dialects import prefixed_status
from eventjobs.http.dialects.dialect import dialect_route
from eventjobs.http.dialects.error_body import error_text
from eventjobs.http.dialects.job_ids import PREFIX, IdForm, parse_any_id
from eventjobs.http.dialects.jobs import find_view
from eventjobs.http.dialects.seed_001_log import log_request
from eventjobs.http.responses import reply
from eventjobs.http.routing import RequestSpec, ResponseSpec
from eventjobs.projections import JobView

#: These front ends know no other statuses: one that they do not know would be polled for ever.
_STATUSES = {Status.CANCELLED: Status.FAILED}


class JobStatus(BaseModel):
    """The job in the words of the front end that its id belongs to."""

    model_config = ConfigDict(extra="allow")


def render(view: JobView) -> dict[str, Any]:
    """The job for a front end that names it by its UUID."""
    job = view.job
    body: dict[str, Any] = {
        "job_id": job.job_id,
        "status": _STATUSES.get(Status(job.status), job.status),
        "created_at": naive(job.created_us),
        "updated_at": naive(job.updated_us),
        "progress": _percent(view),
    }
    if (payload := fragment_of(job.spec, "payload")) is not None:
        body["payload"] = payload
    if job.status == Status.COMPLETED:
        body["result"] = fragment_of(job, "result")
    if (message := error_text(job)) is not None:
        body["error_message"] = message
    return body


def _percent(view: JobView) -> float:
    if view.job.status == Status.COMPLETED:
        return 100
    return 0 if view.progress is None else round(view.progress.fraction * 100, 1)


async def get(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The status of a job. The form of the id decides in whose words."""
    text = request.match_info["id"]
    lookup = _find(context, request, text)
    if "001" in context.dialect_logs and not text.startswith(PREFIX):
        lookup = log_request(text, lookup)
    form, view = await lookup
    if form is IdForm.PREFIXED:
        return reply(prefixed_status.render(view, context.proxies.base_url(request)))
    return reply(render(view))


async def _find(context: AppContext, request: web.Request, text: str) -> tuple[IdForm, JobView]:
    """The form of the id *text*, and its job. Raises as *parse_any_id* and *find_view*."""
    form, job_id = parse_any_id(text)
    return form, await find_view(context, request, job_id)


ROUTE = dialect_route(
    "GET",
    "/api/job-status/{id}",
    Action.READ,
    get,
    RequestSpec(),
    (ResponseSpec(200, "the job", JobStatus, "application/json"),),
)
