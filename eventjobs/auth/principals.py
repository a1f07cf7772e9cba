"""Principals: who sends a request, and the scopes that say what it may do."""

from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """What a credential permits. A scope `worker:TYPE` permits to claim jobs of that type."""

    SUBMIT = "jobs:submit"
    READ = "jobs:read"
    CONTROL = "jobs:control"
    AUDIT = "audit:export"
    ADMIN = "admin"


WORKER_SCOPE = "worker:"
#: As the type in a worker's scope: all types.
ALL_TYPES = "*"
#: All scopes, for messages.
SCOPES = (*Scope, f"{WORKER_SCOPE}TYPE", f"{WORKER_SCOPE}{ALL_TYPES}")
#: The scopes of a credential that names none.
USER_SCOPES = frozenset({Scope.SUBMIT, Scope.READ, Scope.CONTROL})
#: The owner of jobs that were submitted without a credential. No credential has this owner.
ANONYMOUS_OWNER = "anonymous"
#: Begins the one of a principal's `credentials` that stands for the key of its token.
JWK_PREFIX = "jwk:"


def is_scope(text: str) -> bool:
    """Whether a credential can have the scope *text*."""
    is_worker = text.startswith(WORKER_SCOPE) and text != WORKER_SCOPE
    return text in set(Scope) or (is_worker and text.isprintable())


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request. *name* is the actor of its events; it contains no slash.

    *credentials* identify its key, token or session: the revocation of one of them ends its
    streams. It is valid until *expires_us*, in microseconds since 1970.
    """

    name: str
    #: Whose jobs it may use. None, which matches none: only for a principal that may use all.
    owner: str | None
    scopes: frozenset[str]
    credentials: tuple[str, ...] = ()
    expires_us: int | None = None
    #: The job types that it may claim. ALL_TYPES stands for all.
    worker_types: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Not a property: the policy reads it for almost every request.
        object.__setattr__(self, "worker_types", _worker_types(self.scopes))

    def worker_name(self, name: str) -> str:
        """The worker *name* of this principal, as events have it. Another principal's worker of the
        same name is another worker.
        """
        return name if self is LOCAL else f"{self.name}/{name}"


def _worker_types(scopes: frozenset[str]) -> frozenset[str]:
    if Scope.ADMIN in scopes:
        return frozenset({ALL_TYPES})
    names = (each for each in scopes if each.startswith(WORKER_SCOPE))
    return frozenset(each.removeprefix(WORKER_SCOPE) for each in names)


#: Everybody, while authentication is off.
LOCAL = Principal("http", None, frozenset({Scope.ADMIN}))
#: A request without a credential, while authentication is optional.
ANONYMOUS = Principal("anonymous", ANONYMOUS_OWNER, USER_SCOPES)
