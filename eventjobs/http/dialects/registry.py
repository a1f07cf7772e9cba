"""The dialects that there are, and those that the settings select."""

from collections.abc import Iterable

from eventjobs.errors import InvalidInput
from eventjobs.http.dialects import seed_000
from eventjobs.http.routing import Route

DIALECTS = {each.name: each for each in (seed_000.DIALECT,)}


def select_dialects(names: str) -> frozenset[str]:
    """The names in *names*, with commas, or `all`. Raises InvalidInput for an unknown one."""
    selected = frozenset(filter(None, map(str.strip, names.split(","))))
    if selected == {"all"}:
        return frozenset(DIALECTS)
    if unknown := selected - DIALECTS.keys():
        raise InvalidInput(
            f"there is no dialect {', '.join(sorted(unknown))}; there are {', '.join(DIALECTS)}"
        )
    return selected


def routes_of(names: Iterable[str]) -> tuple[Route, ...]:
    """The routes of these dialects, each once."""
    routes = (route for name in sorted(names) for route in DIALECTS[name].routes)
    return tuple(dict.fromkeys(routes))
