"""The policy: which principal may do what, and with which job. Nothing else decides that."""

from enum import StrEnum
from typing import NamedTuple

from eventjobs.auth.principals import ANONYMOUS, ANONYMOUS_OWNER, LOCAL, Principal, Scope


class Action(StrEnum):
    """What a request does. Each route has one, or is public."""

    #: Read who one is.
    IDENTIFY = "identify"
    #: Submit a job.
    SUBMIT = "submit"
    #: Store a file for a job.
    UPLOAD = "upload"
    #: Read a job and its events.
    READ = "read"
    #: Read all jobs that the principal may see, or their number.
    LIST = "list"
    #: Cancel, retry or delete a job; keep webhooks.
    CONTROL = "control"
    #: Claim jobs, and report on their attempts.
    WORK = "work"
    #: Read what is about the whole service: types, queues, schedules, breakers.
    INSPECT = "inspect"
    #: Change what is about the whole service: pauses, views, API keys.
    OPERATE = "operate"


_SCOPES = {
    Action.SUBMIT: Scope.SUBMIT,
    Action.UPLOAD: Scope.SUBMIT,
    Action.READ: Scope.READ,
    Action.LIST: Scope.READ,
    Action.CONTROL: Scope.CONTROL,
}
_AUDITED = frozenset({Action.READ, Action.LIST, Action.INSPECT})
#: What workers need for the jobs that they hold, and for the children of these.
_WORKED = frozenset({Action.READ, Action.CONTROL, Action.UPLOAD, Action.WORK})


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
    if action in _WORKED and principal.worker_types and (job is None or _holds(principal, job)):
        return True
    scope = _SCOPES.get(action)
    if scope is None or scope not in principal.scopes:
        return False
    if job is not None:
        return job.owner is not None and job.owner in (principal.owner, ANONYMOUS_OWNER)
    # An anonymous job is open to all who know its id, so ids are not listed.
    return action is not Action.LIST or principal is not ANONYMOUS


def sees_all(principal: Principal) -> bool:
    """Whether *principal* may read the jobs of all owners."""
    return Scope.ADMIN in principal.scopes or Scope.AUDIT in principal.scopes


def may_unmask(principal: Principal, owner: str | None) -> bool:
    """Whether *principal* may read the sensitive fields of a job of *owner*."""
    return principal is LOCAL or (owner is not None and owner == principal.owner)


def may_claim(principal: Principal, type: str) -> bool:
    """Whether *principal* may claim jobs of *type*."""
    return not principal.worker_types.isdisjoint({type, "*"})


def _holds(principal: Principal, job: JobFacts) -> bool:
    """Whether a worker of *principal* holds *job* or its parent."""
    prefix = principal.worker_name("")
    return any(each is not None and each.startswith(prefix) for each in job[1:])
