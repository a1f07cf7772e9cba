"""The dialects that there are, and those that the settings select."""

from collections.abc import Collection, Iterable

from eventjobs.errors import InvalidInput
from eventjobs.http.dialects import seed_000, seed_001, seed_002, seed_003, seed_004
from eventjobs.http.routing import Route
from eventjobs.settings.formats import DomainRoute

_ALL = (
    seed_000.DIALECT,
    seed_001.DIALECT,
    seed_002.DIALECT,
    seed_003.DIALECT,
    seed_004.DIALECT,
)
DIALECTS = {each.name: each for each in _ALL}


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


def routes_of(names: Collection[str], domain_routes: Iterable[DomainRoute]) -> tuple[Route, ...]:
    """The routes of these dialects, each once."""
    routes = [route for name in sorted(names) for route in DIALECTS[name].routes]
    if seed_003.DIALECT.name in names:
        routes += seed_003.submission_routes(domain_routes)
    return tuple(dict.fromkeys(routes))
