"""The results of a job's completion hooks, which are part of its state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from eventjobs.domain.events import HOOK_TYPES, HookCompleted, HookFailed


@dataclass(frozen=True, slots=True)
class HookResult:
    """The record that the hook *name* made: its id and URL; or why the hook failed.

    *error* is {"code", "message"}.
    """

    name: str
    id: str | None = None
    url: str | None = None
    error: dict[str, str | None] | None = None

    @property
    def link(self) -> str | None:
        """The URL of the record, or its id if it has none; None for a failed hook."""
        return self.url or self.id


def hook_type(type: str, name: str) -> str:
    """The type of the jobs that run the hook *name* of jobs of *type*."""
    return f"{HOOK_TYPES}{type}.{name}"


def result_of(event: HookCompleted | HookFailed) -> HookResult:
    match event:
        case HookCompleted():
            return HookResult(event.name, event.id, event.url)
        case HookFailed():
            return HookResult(event.name, error={"code": event.code, "message": event.message})
        case _ as never:
            assert_never(never)


def replace_result(results: Sequence[HookResult], result: HookResult) -> tuple[HookResult, ...]:
    """*results* with *result* in place of the earlier one of the same hook."""
    return (*(each for each in results if each.name != result.name), result)
