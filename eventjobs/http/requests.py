"""What endpoints read from a request: ids, queries, the job that is meant."""

from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from eventjobs.clock import timeout
from eventjobs.commands.jobs import CommandReason
from eventjobs.domain.ids import parse_id
from eventjobs.domain.job import require_readable
from eventjobs.domain.validation import field_errors
from eventjobs.errors import InvalidInput, JobGone, JobNotFound
from eventjobs.http.app_context import AppContext
from eventjobs.http.headers import wants_stream
from eventjobs.http.problem import ViewsBehind
from eventjobs.http.request_body import read_json
from eventjobs.http.schemas.queries import unfit
from eventjobs.http.streams.snapshots import Snapshot
from eventjobs.service import Service

#: Who did what came in here: there is no authentication yet.
ACTOR = "http"
#: Answers wait this long for the views to show what was written; then they are a little old.
VIEWS_S = 2.0


def path_id(request: web.Request) -> str:
    """The job id of the address. Raises JobNotFound."""
    return existing_id(request.match_info["id"])


def existing_id(text: str) -> str:
    """What is no UUID names no job: raises JobNotFound."""
    try:
        return parse_id(text)
    except InvalidInput as error:
        raise JobNotFound from error


async def views_caught_up(service: Service) -> None:
    """Return when the views show all that is in the log now: everyone reads their own writes.

    Raises ViewsBehind when that takes long, or something is wrong with the views.
    """
    views = service.views
    if views.failing is not None:
        raise ViewsBehind
    if views.position < (head := service.log.head):
        try:
            async with timeout(service.clock, VIEWS_S):
                await views.reached(head)
        except TimeoutError as error:
            raise ViewsBehind from error


async def reason_of(site: AppContext, request: web.Request) -> CommandReason:
    """Of a command that may have a body. Raises as *read_json*."""
    return (
        await read_json(site.service, request, CommandReason)
        if request.can_read_body
        else CommandReason()
    )


def require_job(snapshot: Snapshot | None) -> Snapshot:
    """Raises JobNotFound, JobUnreadable, JobGone."""
    if snapshot is None:
        raise JobNotFound
    if require_readable(snapshot.job).expired_us is not None:
        raise JobGone(expired_us=snapshot.job.expired_us)
    return snapshot


Model = TypeVar("Model", bound=BaseModel)


def read_query(request: web.Request, model: type[Model]) -> Model:
    """Raises InvalidInput naming the parameters.

    For a stream, unknown ones are ignored: an EventSource gives up for good after a refusal, and
    what polyfills and cache busters add is not the page's to leave out.
    """
    given: dict[str, Any] = {}
    lenient = wants_stream(request)
    for name in request.query:
        if lenient and name not in model.model_fields:
            continue
        values = request.query.getall(name)
        if name in ("id", "status", "type"):
            given[name] = values
        elif len(values) > 1:
            raise unfit(name, "give it once")
        else:
            given[name] = values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidInput("the query does not fit", field_errors(error)) from error
