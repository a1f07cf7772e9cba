"""The front end of case analyses: a POST to a case's path submits a job, which is polled."""

from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.http.app_context import AppContext
from eventjobs.http.dialects import jobs_path
from eventjobs.http.dialects.dialect import Dialect, dialect_route
from eventjobs.http.dialects.jobs import submit
from eventjobs.http.responses import reply
from eventjobs.http.routing import Endpoint, RequestSpec, ResponseSpec, Route
from eventjobs.http.schemas.response_model import ResponseModel
from eventjobs.settings.formats import DomainRoute

#: The paths of the front end.
CASE_ROUTES = tuple(
    DomainRoute(path=path, type=type, payload={"case_id": "{case_id}"})
    for path, type in (
        ("/vapi/re-analyze-call/{case_id}", "call_reanalysis"),
        ("/cases/{case_id}/analyze-with-agent", "agent_analysis"),
        ("/cases/{case_id}/analyze-documents-form7801", "document_analysis_form7801"),
    )
)
MESSAGE = "Job created. Poll for status."


class AcceptedJob(ResponseModel):
    status: str
    job_id: str
    poll_url: str
    message: str


def submission_routes(declared: Iterable[DomainRoute]) -> Iterator[Route]:
    """Two routes for each of the *declared* ones: at its path, and below /api."""
    for each in declared:
        endpoint = _endpoint_of(each)
        for path in (each.path, f"/api{each.path}"):
            yield dialect_route(
                "POST",
                path,
                Action.SUBMIT,
                endpoint,
                RequestSpec(),
                (ResponseSpec(200, "the job is in the log", AcceptedJob, "application/json"),),
            )


def _endpoint_of(declared: DomainRoute) -> Endpoint:
    async def submit_for_path(context: AppContext, request: web.Request) -> web.StreamResponse:
        payload = _fill(declared.payload, dict(request.match_info))
        job = await submit(context, request, declared.type, payload)
        return reply(
            {
                "status": "accepted",
                "job_id": job.job_id,
                "poll_url": f"/jobs/{job.job_id}",
                "message": MESSAGE,
            }
        )

    submit_for_path.__doc__ = f"Submit a job of type {declared.type}."
    return submit_for_path


def _fill(template: Any, parts: dict[str, str]) -> Any:
    """*template* with the *parts* of the path in the place of their names."""
    if isinstance(template, dict):
        return {key: _fill(value, parts) for key, value in template.items()}
    if isinstance(template, list):
        return [_fill(each, parts) for each in template]
    if isinstance(template, str):
        for name, part in parts.items():
            template = template.replace(f"{{{name}}}", part)
    return template


DIALECT = Dialect("003", jobs_path.ROUTES)
