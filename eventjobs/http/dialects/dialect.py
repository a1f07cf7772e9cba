"""A dialect: the routes of one front end, in its own words."""

from dataclasses import dataclass

from eventjobs.http.routing import Route


@dataclass(frozen=True)
class Dialect:
    """The routes of a front end. Two dialects may share a route: it is the same object in both."""

    name: str
    routes: tuple[Route, ...]
