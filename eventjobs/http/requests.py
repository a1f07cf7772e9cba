"""Reads of a request's ids, query and reason, and the checks that several endpoints share."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from eventjobs.auth.policy import Action, may_claim
from eventjobs.auth.principals import ALL_TYPES, Principal
from eventjobs.clock import timeout
from eventjobs.commands.access import permits_id
from eventjobs.commands.jobs import CommandReason
from eventjobs.domain.ids import parse_id
from eventjobs.domain.job import Job, require_readable
from eventjobs.domain.outcomes import AttemptHolder
from eventjobs.domain.spec import Artifact
from eventjobs.domain.validation import field_errors
from eventjobs.errors import InvalidInput, JobGone, JobNotFound
from eventjobs.http.auth import principal_of, restrict_owner
from eventjobs.http.headers import wants_stream
from eventjobs.http.json_body import read_json
from eventjobs.http.request_errors import ViewsBehind, query_error
from eventjobs.service import Service

#: The longest wait for the views to show what was written.
VIEWS_S = 2.0
#: Parameters that may be repeated.
_LISTS = frozenset({"id", "status", "type"})


async def path_id(service: Service, request: web.Request, action: Action = Action.READ) -> str:
    """The id in the path, of a job with which the principal may do *action*.

    Raises JobNotFound, and the same for a job that the principal may not use.
    """
    job_id = parse_job_id(request.match_info["id"])
    await service.imports.refresh(job_id)
    if not await permits_id(service.jobs, principal_of(request), action, job_id):
        raise JobNotFound
    return job_id


async def checked_holder(
    service: Service, request: web.Request, holder: AttemptHolder
) -> AttemptHolder:
    """*holder* with its worker's name as events have it.

    Raises JobNotFound for a job of a type that the principal may not claim.
    """
    principal = principal_of(request)
    if not may_claim(principal, ALL_TYPES):
        job = await service.jobs.load_even_parked(holder.job_id)
        if job is None or not may_claim(principal, job.spec.type):
            raise JobNotFound
    return holder._replace(worker=principal.worker_name(holder.worker or ""))


def parse_job_id(text: str) -> str:
    """*text* as a job id. Raises JobNotFound where it is no UUID."""
    try:
        return parse_id(text)
    except InvalidInput as error:
        raise JobNotFound from error


def require_job(job: Job | None, message: str | None = None, *, hidden: bool = False) -> Job:
    """*job*, if it exists, is readable and not hidden. Where *hidden* is true, it may be hidden.

    Raises JobNotFound with *message*, JobUnreadable, and JobGone with the time of hiding.
    """
    if job is None:
        raise JobNotFound(message)
    if require_readable(job).expired_us is not None and not hidden:
        raise JobGone(expired_us=job.expired_us)
    return job


async def views_caught_up(service: Service) -> None:
    """Return when the views show all that is in the log now, so that clients read their own writes.

    Raises ViewsBehind after VIEWS_S seconds, and at once while the views fail.
    """
    await _wait_for_head(service, service.views.position, service.views.wait_for_position)


async def present_caught_up(service: Service) -> None:
    """As *views_caught_up*, for reads of one job: these do not wait for a write of the views."""
    await _wait_for_head(service, service.views.present_position, service.views.wait_for_present)


async def _wait_for_head(
    service: Service, position: int, wait: Callable[[int], Awaitable[None]]
) -> None:
    if service.views.failing is not None:
        raise ViewsBehind
    if position < (head := service.log.head):
        try:
            async with timeout(service.clock, VIEWS_S):
                await wait(head)
        except TimeoutError as error:
            raise ViewsBehind from error


async def permitted_counts(
    service: Service, principal: Principal
) -> tuple[dict[str, dict[str, int]], int]:
    """The numbers of the jobs that *principal* may list, by type and status, and a position of the
    views that they are not older than.

    Raises Forbidden, Unauthenticated, ViewsBehind.
    """
    owner, views = restrict_owner(principal, None), service.views
    await views_caught_up(service)
    position = views.position
    return await (views.counts() if owner is None else views.counts_of(owner)), position


async def permitted_files(
    service: Service, files: Mapping[str, str], owners: Collection[str] | None
) -> tuple[Artifact, ...]:
    """The stored files *files*, {name: sha256}, if they are those of *owners*; None is all owners.

    Raises UnknownArtifact, also for a file of another owner; ViewsBehind.
    """
    if owners is not None:
        await views_caught_up(service)  # they have the files of jobs
    return await service.submissions.artifacts_of(files, owners)


async def read_reason(service: Service, request: web.Request) -> CommandReason:
    """The reason in the body of a command, which may have no body. Raises as *read_json*."""
    if not request.can_read_body:
        return CommandReason()
    return await read_json(service, request, CommandReason)


Model = TypeVar("Model", bound=BaseModel)


def read_query(request: web.Request, model: type[Model]) -> Model:
    """The query string as *model*. Raises InvalidInput naming the parameters.

    A stream ignores unknown parameters: an EventSource never reconnects after a refusal, and
    polyfills and cache busters add parameters that a page cannot leave out.
    """
    values: dict[str, Any] = {}
    lenient = wants_stream(request)
    for name in request.query:
        if lenient and name not in model.model_fields:
            continue
        texts = request.query.getall(name)
        if name in _LISTS:
            values[name] = texts
        elif len(texts) > 1:
            raise query_error(name, "give it once")
        else:
            values[name] = texts[0]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidInput("the query does not fit", field_errors(error)) from error
