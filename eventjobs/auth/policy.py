"""The policy: which principal may do what, and with which job. Nothing else decides that."""

from enum import StrEnum
from typing import NamedTuple

from eventjobs.auth.principals import ALL_TYPES, ANONYMOUS, ANONYMOUS_OWNER, LOCAL, Principal, Scope


class Action(StrEnum):
    """What a request does. Each route has one, or is public."""

    #: Read who one is.
    IDENTIFY = "identify"
    #: Submit a job.
    SUBMIT = "submit"
    #: Store a file, or a job under an id, as clients do and workers for the jobs that they hold.
    SUPPLY = "supply"
    #: Read a job and its events.
    READ = "read"
    #: Read all jobs that the principal may see, or their number.
    LIST = "list"
    #: Cancel, retry or delete a job.
    CONTROL = "control"
    #: Add and remove webhooks for the jobs of the principal.
    SUBSCRIBE = "subscribe"
    #: Claim jobs, and report on their attempts.
    WORK = "work"
    #: Read what is about the whole service: types, queues, schedules, breakers, API keys.
    INSPECT = "inspect"
    #: Change what is about the whole service: pauses, views, API keys.
    OPERATE = "operate"


_SCOPES = {
    Action.SUBMIT: Scope.SUBMIT,
    Action.SUPPLY: Scope.SUBMIT,
    Action.READ: Scope.READ,
    Action.LIST: Scope.READ,
    Action.CONTROL: Scope.CONTROL,
    Action.SUBSCRIBE: Scope.CONTROL,
}
#: Actions on all jobs of an owner. An anonymous job is open to those who know its id, and only to
#: them, so that none of these includes anonymous jobs.
_OF_OWNER = frozenset({Action.LIST, Action.SUBSCRIBE})
_AUDITED = frozenset({Action.READ, Action.LIST, Action.INSPECT})
#: What a worker does: it reads the jobs that it holds and their children, and retries these.
_WORKED = frozenset({Action.READ, Action.CONTROL, Action.SUPPLY, Action.WORK})


class JobFacts(NamedTuple):
    """What the policy reads of a job: its owner, its worker, and the worker of its parent."""

    owner: str | None
    worker: str | None = None
    parent_worker: str | None = None


def permits(principal: Principal, action: Action, job: JobFacts | None = None) -> bool:
    """Whether *principal* may do *action* with *job*; without a job, with any job at all."""
    if action is Action.IDENTIFY or Scope.ADMIN in principal.scopes:
        return True
    if action in _AUDITED and Scope.AUDIT in principal.scopes:
        return True
    if action in _WORKED and principal.worker_types:
        if job is None or _holds(principal, job.parent_worker):
            return True
        if action is not Action.CONTROL and _holds(principal, job.worker):
            return True
    scope = _SCOPES.get(action)
    if scope is None or scope not in principal.scopes:
        return False
    if action in _OF_OWNER:
        owns = job is None or job.owner == principal.owner
        return owns and principal is not ANONYMOUS
    return job is None or job.owner in (principal.owner, ANONYMOUS_OWNER)


def sees_all(principal: Principal) -> bool:
    """Whether *principal* may read the jobs of all owners."""
    return Scope.ADMIN in principal.scopes or Scope.AUDIT in principal.scopes


def may_unmask(principal: Principal, job: JobFacts) -> bool:
    """Whether *principal* may read the sensitive fields of *job*: its owner, and its workers."""
    if principal is LOCAL or (job.owner is not None and job.owner == principal.owner):
        return True
    holds = _holds(principal, job.worker) or _holds(principal, job.parent_worker)
    return holds and bool(principal.worker_types)


def may_claim(principal: Principal, type: str) -> bool:
    """Whether *principal* may claim jobs of *type*."""
    types = principal.worker_types
    return type in types or ALL_TYPES in types


def _holds(principal: Principal, worker: str | None) -> bool:
    """Whether *worker*, which holds a job, is one of *principal*."""
    return worker is not None and worker.startswith(principal.worker_name(""))
