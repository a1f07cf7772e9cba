"""Jobs by page numbers, and the command that stops one, of the dialect 000."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from eventjobs.auth.policy import Action
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of, restrict_owner
from eventjobs.http.cursors import POSITION_MAX
from eventjobs.http.dialects.dialect import dialect_route
from eventjobs.http.dialects.job_ids import parse_any_id
from eventjobs.http.dialects.job_status import render
from eventjobs.http.dialects.jobs import check_access, mask_view
from eventjobs.http.request_errors import query_error
from eventjobs.http.requests import read_query, views_caught_up
from eventjobs.http.responses import reply
from eventjobs.http.routing import RequestSpec, ResponseSpec
from eventjobs.http.schemas.queries import Many, Query
from eventjobs.http.schemas.response_model import ResponseModel

JSON = "application/json"
StatusWord = Literal["queued", "running", "completed", "failed"]
#: The dialect shows cancelled jobs as failed ones.
_STATUSES = {"failed": ["cancelled", "failed"]}
#: Jobs that the pages before the requested one may hold: a page is read from the first job on.
SKIPPED_MAX = 10_000


class PageQuery(Query):
    """Which page of the jobs, the newest first."""

    page: int = Field(1, ge=1, description="counted from 1")
    limit: int = Field(10, ge=1, le=100, description="jobs of one page")
    status: Annotated[list[StatusWord] | None, Many] = Field(None, description="any of these")
    as_of: int | None = Field(
        None,
        ge=0,
        le=POSITION_MAX,
        description="`as_of` of the first page: later jobs are left out",
    )


class PageOfJobs(BaseModel):
    """A page of jobs, each as its status."""

    model_config = ConfigDict(extra="allow")


class DeletedJob(ResponseModel):
    job_id: str
    status: str


async def pages(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Your jobs by page, the newest first. With `as_of`, new jobs do not shift the pages."""
    query = read_query(request, PageQuery)
    skipped = (query.page - 1) * query.limit
    if skipped > SKIPPED_MAX:
        raise query_error("page", f"at most {SKIPPED_MAX} jobs are skipped")
    service, principal = context.service, principal_of(request)
    shown = [each for word in query.status or () for each in _STATUSES.get(word, [word])]
    filters = {"owner": restrict_owner(principal, None), "status": shown or None}
    await views_caught_up(service)
    as_of = service.views.position if query.as_of is None else query.as_of
    count = skipped + query.limit
    views = await service.views.jobs(filters, order="newest", cursor=as_of + 1, limit=count + 1)
    page = [await mask_view(service, principal, each) for each in views[skipped:count]]
    return reply(
        {
            "jobs": [render(each) for each in page],
            "page": query.page,
            "limit": query.limit,
            "has_more": len(views) > count,
            "as_of": as_of,
        }
    )


async def cancel(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Cancel a job. Harmless to repeat."""
    _, job_id = parse_any_id(request.match_info["id"])
    await check_access(context, request, job_id, Action.CONTROL)
    await context.service.jobs.cancel(job_id, actor=principal_of(request).name)
    return reply({"job_id": job_id, "status": "cancelled"})


ROUTES = (
    dialect_route(
        "GET",
        "/api/jobs",
        Action.LIST,
        pages,
        RequestSpec(query=PageQuery),
        (ResponseSpec(200, "a page of jobs", PageOfJobs, JSON),),
    ),
    dialect_route(
        "DELETE",
        "/api/job/{id}",
        Action.CONTROL,
        cancel,
        RequestSpec(),
        (ResponseSpec(200, "the job is cancelled, or stops soon", DeletedJob, JSON),),
    ),
)
