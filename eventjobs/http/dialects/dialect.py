"""A dialect: the routes of one front end, in its own words."""

from dataclasses import dataclass
from functools import partial

from eventjobs.http.dialects.error_body import as_dialect_error
from eventjobs.http.routing import Route

#: A route whose errors have the body of dialects.
dialect_route = partial(Route, error_format=as_dialect_error)


@dataclass(frozen=True)
class Dialect:
    """The routes of a front end. Two dialects may share a route: it is the same object in both."""

    name: str
    routes: tuple[Route, ...]
