"""The description of a route, from which the router and the OpenAPI document are made."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from eventjobs.errors import EventjobsError
from eventjobs.http.app_context import AppContext
from eventjobs.http.origin_guard import _SAFE_METHODS

#: Answers at once, or not at all; it asks *is_strange* by itself.
FastPath = Callable[[AppContext, web.Request], web.StreamResponse | None]
Endpoint = Callable[[AppContext, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class RequestSpec:
    """What a request brings. A *media_type* with no *body* model is raw bytes."""

    body: type[BaseModel] | None = None
    media_type: str | None = None
    optional: bool = False
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResponseSpec:
    """What comes back when all is well. A *media_type* with no *shape* is raw bytes."""

    status: int
    says: str
    shape: type[BaseModel] | None = None
    media_type: str | None = None
    headers: tuple[str, ...] = ()
    streams: bool = False


@dataclass(frozen=True)
class Route:
    """Its handler's docstring describes it. Errors that any route can end in are not listed."""

    method: str
    path: str
    handler: Endpoint
    takes: RequestSpec
    gives: tuple[ResponseSpec | type[EventjobsError], ...]
    quick: FastPath | None = None

    @property
    def varies(self) -> bool:
        """Whether it answers with JSON or with a stream."""
        return any(isinstance(each, ResponseSpec) and each.streams for each in self.gives)

    @property
    def unconditional(self) -> bool:
        """Whether it is a command on what has no tag."""
        return self.method not in _SAFE_METHODS and "If-Match" not in self.takes.headers
