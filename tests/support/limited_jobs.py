"""Job types with limits, and how many of their jobs ran at once by the log."""

from collections import Counter
from typing import Any

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    JobCancelled,
    JobCompleted,
    JobSubmitted,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.support.clock import SECOND


@handler("free")
async def free(context: Context, payload: Any) -> Any:
    return payload


@handler("two", concurrency=2)
async def two(context: Context, payload: Any) -> Any:
    return payload


@handler("pair", key_concurrency=2, queue="narrow")
async def pair(context: Context, payload: Any) -> Any:
    return payload


@handler("paced", rate="3/m")
async def paced(context: Context, payload: Any) -> Any:
    return payload


ENDS = (JobCompleted, AttemptFailed, AttemptReleased, JobCancelled)


def most_at_once(events: list[Recorded]) -> Counter[tuple[str, str]]:
    """How many ran at the same time by the log: of each type, in each queue, with each key."""
    specs: dict[str, JobSpec] = {}
    running: dict[str, list[tuple[str, str]]] = {}
    now: Counter[tuple[str, str]] = Counter()
    most: Counter[tuple[str, str]] = Counter()
    for each in events:
        if isinstance(each.event, JobSubmitted):
            specs[each.job_id] = each.event.spec
        elif isinstance(each.event, AttemptStarted):
            spec = specs[each.job_id]
            places = [("type", spec.type), ("queue", spec.queue or "default")]
            places += [("key", spec.concurrency_key)] if spec.concurrency_key else []
            running[each.job_id] = places
            now.update(places)
            most |= now
        elif isinstance(each.event, ENDS):
            now.subtract(running.pop(each.job_id, []))
    return most


def most_in_a_minute(events: list[Recorded], type: str) -> int:
    ids = {
        each.job_id
        for each in events
        if isinstance(each.event, JobSubmitted) and each.event.spec.type == type
    }
    starts = [
        each.at_us
        for each in events
        if each.job_id in ids and isinstance(each.event, AttemptStarted)
    ]
    return max((sum(at <= each < at + 60 * SECOND for each in starts) for at in starts), default=0)
