"""Descriptions of routes, from which the router and the OpenAPI document are built."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from eventjobs.auth.policy import Action
from eventjobs.errors import EventjobsError
from eventjobs.http.app_context import AppContext
from eventjobs.http.origin_guard import SAFE_METHODS
from eventjobs.http.problem import ErrorFormat
from eventjobs.http.rate_limits import RequestKind

#: Answers without an await, or returns None. It calls the origin guard itself. The text is Vary.
FastPath = Callable[[AppContext, web.Request, str], web.StreamResponse | None]
Endpoint = Callable[[AppContext, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class RequestSpec:
    """What a request may contain. A *media_type* without a *body* model is raw bytes."""

    body: type[BaseModel] | None = None
    media_type: str | None = None
    optional: bool = False
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResponseSpec:
    """A successful response. A *media_type* without a *model* is raw bytes."""

    status: int
    description: str
    model: type[BaseModel] | None = None
    media_type: str | None = None
    headers: tuple[str, ...] = ()
    streams: bool = False


#: The kinds of the requests that do an action. All others are reads.
_KINDS = {
    Action.SUBMIT: RequestKind.SUBMIT,
    Action.SUPPLY: RequestKind.SUBMIT,
    Action.WORK: RequestKind.WORK,
}


@dataclass(frozen=True)
class Route:
    """A route, described by the docstring of *endpoint*. Errors that any route may answer with are
    not listed. A route without an *action* is public: it needs no principal.

    Requests are counted by *kind* against the rate limits; None: they are not limited.
    """

    method: str
    path: str
    action: Action | None
    endpoint: Endpoint
    request: RequestSpec
    responses: tuple[ResponseSpec | type[EventjobsError], ...]
    fast_path: FastPath | None = None
    #: Of the body of errors; None: a problem (RFC 9457).
    error_format: ErrorFormat | None = None
    kind: RequestKind | None = RequestKind.READ

    def __post_init__(self) -> None:
        if self.action in _KINDS:
            object.__setattr__(self, "kind", _KINDS[self.action])

    @property
    def varies(self) -> bool:
        """Whether the response depends on Accept: JSON or a stream."""
        return any(isinstance(each, ResponseSpec) and each.streams for each in self.responses)

    @property
    def unconditional(self) -> bool:
        """Whether it is a command on a resource without an ETag."""
        return self.method not in SAFE_METHODS and "If-Match" not in self.request.headers
