"""Completion hooks whose job is to be submitted, and those whose end is to be recorded."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from eventjobs.domain.events import (
    HOOK_TYPES,
    HookCompleted,
    HookFailed,
    JobCompleted,
    JobRetried,
    JobSubmitted,
    Unreadable,
    ends_job,
)
from eventjobs.domain.ids import hook_id
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "hooks"
VERSION = 1

SCHEMA = """
CREATE TABLE hooks (
  hook_id TEXT    PRIMARY KEY,  -- of the job that runs the hook
  job_id  TEXT    NOT NULL,     -- the completed job
  name    TEXT    NOT NULL,
  ended   INTEGER NOT NULL      -- 0: the hook's job is to be submitted; 1: it has ended
) STRICT, WITHOUT ROWID;
"""

ADD_HOOKS = """
INSERT OR REPLACE INTO hooks
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)
"""
DELETE_HOOKS = "DELETE FROM hooks WHERE hook_id IN (SELECT value FROM json_each(?1))"
#: Rows of PendingHook.
SELECT_HOOKS = """
SELECT json_group_array(json_array(hook_id, job_id, name, ended))
FROM (SELECT * FROM hooks LIMIT ?1)
"""


class PendingHook(NamedTuple):
    """The hook *name* of the completed job *job_id*: its own job has to be submitted, or has
    *ended*, which has to be recorded.
    """

    hook_id: str
    job_id: str
    name: str
    ended: bool


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    # By hook: the position of its last event in this batch, and its row after that.
    last: dict[str, tuple[int, PendingHook | None]] = {}
    for change in changes:
        if change.after.spec.hooks:
            events = _of_hooked_job(change)
        elif change.after.spec.type.startswith(HOOK_TYPES):
            events = _of_hook_job(change)
        else:
            continue
        for position, id, pending in events:
            if id not in last or last[id][0] < position:
                last[id] = position, pending
    if added := [tuple(pending) for _, pending in last.values() if pending is not None]:
        yield ADD_HOOKS, rows(added)
    if removed := [id for id, (_, pending) in last.items() if pending is None]:
        yield DELETE_HOOKS, rows(removed)


_Events = Iterator[tuple[int, str, PendingHook | None]]


def _of_hooked_job(change: JobChange) -> _Events:
    job_id = change.after.job_id
    for each in change.events:
        match each.event:
            case JobCompleted():
                for name in change.after.spec.hooks:
                    id = hook_id(job_id, name)
                    yield each.position, id, PendingHook(id, job_id, name, ended=False)
            case HookCompleted(name=name) | HookFailed(name=name):
                yield each.position, hook_id(job_id, name), None
            case Unreadable():  # it is parked: nothing more can be recorded of it
                for name in change.after.spec.hooks:
                    yield each.position, hook_id(job_id, name), None
            case _:
                pass


def _of_hook_job(change: JobChange) -> _Events:
    id, payload = change.after.job_id, change.after.spec.payload
    for each in change.events:
        if isinstance(each.event, JobSubmitted | JobRetried):
            yield each.position, id, None
        elif ends_job(each.event) or isinstance(each.event, Unreadable):
            yield each.position, id, PendingHook(id, payload["job"], payload["hook"], ended=True)
