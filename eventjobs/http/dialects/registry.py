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


#: The dialects that have log lines.
_LOGS = ("001", "004")


def select_dialects(names: tuple[str, ...]) -> frozenset[str]:
    """The dialects *names*; `all` is every one. Raises InvalidInput for an unknown one."""
    return _select("dialect", names, DIALECTS)


def select_dialect_logs(names: tuple[str, ...]) -> frozenset[str]:
    """The dialects whose log lines are written. Raises InvalidInput as *select_dialects*."""
    return _select("dialect with log lines", names, _LOGS)


def _select(kind: str, names: tuple[str, ...], choices: Collection[str]) -> frozenset[str]:
    selected = frozenset(names)
    if selected == {"all"}:
        return frozenset(choices)
    if unknown := selected - set(choices):
        raise InvalidInput(
            f"there is no {kind} {', '.join(sorted(unknown))}; there are {', '.join(choices)}"
        )
    return selected


def routes_of(names: Collection[str], domain_routes: Iterable[DomainRoute]) -> tuple[Route, ...]:
    """The routes of these dialects, each once."""
    routes = [route for name in sorted(names) for route in DIALECTS[name].routes]
    if seed_003.DIALECT.name in names:
        routes += seed_003.submission_routes(domain_routes)
    return tuple(dict.fromkeys(routes))
