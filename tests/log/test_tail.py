"""The tail of a log keeps the newest events within bounds, and nothing of a wait that has ended."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.domain.codec import encode
from eventjobs.domain.events import LogWritten
from eventjobs.domain.recorded import Recorded
from eventjobs.log.long_poll import LongPolls
from eventjobs.log.tail import Tail
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.reachable import reachable
from tests.support.waiting import turns

JOBS = (job_id(1), job_id(2))


def log_line(position: int, message: str = "", job: str = JOBS[0]) -> Recorded:
    event = LogWritten(1, "info", message)
    return Recorded(position, job, position, 0, "tester", event, *encode(event))


def memory_size(events: Sequence[Recorded]) -> int:
    return sum(each.memory_size for each in events)


# --- its events


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=5), max_size=20),
    st.integers(1, 6),
    st.integers(1, 30_000),
    st.integers(0, 3),
)
def test_the_tail_answers_rightly_or_not_at_all(
    batches: list[list[int]], events_max: int, bytes_max: int, head: int
) -> None:
    """What is not in memory any more is None, never a gap; the newest few always are there."""
    tail = Tail(head, events_max, bytes_max)
    published: list[Recorded] = []
    for sizes in batches:
        batch = [
            log_line(head + len(published) + n, "x" * size) for n, size in enumerate(sizes, start=1)
        ]
        published += batch
        tail.publish(batch)
        for after in range(head, tail.head + 2):
            for limit in (1, 3, 100):
                page = tail.since(after, limit)
                assert page is None or page == published[after - head :][:limit]
        kept = [each for each in published if tail.since(each.position - 1, 1) is not None]
        assert 1 <= len(kept) <= 2 * events_max
        assert memory_size(kept) <= bytes_max or len(kept) == 1
        largest = max(memory_size([each]) for each in published)
        if (2 * events_max + len(batch)) * largest <= bytes_max:
            assert len(kept) >= min(len(published), events_max)


def test_after_large_events_the_tail_keeps_as_many_small_ones_as_before() -> None:
    tail = Tail(events_max=50, bytes_max=100_000)
    for position in range(1, 400):
        tail.publish([log_line(position, "x" * (30_000 if position < 20 else 1))])
    assert tail.since(tail.head - 50, 50) is not None


# --- those who wait


@pytest.mark.parametrize("end", ["cancelled", "woken", "closed"])
async def test_nothing_is_left_of_a_wait_that_has_ended(end: str) -> None:
    tail, untouched = Tail(), Tail()
    waiting = [asyncio.create_task(tail.wait(0, job)) for job in (None, None, *JOBS, *JOBS)]
    await turns()
    assert reachable(tail)["Future"] == 6
    if end == "woken":
        batch = [log_line(n, job=job) for n, job in enumerate(JOBS, start=1)]
        tail.publish(batch)
        untouched.publish(batch)
    elif end == "closed":
        tail.close()
    else:
        for each in waiting:
            each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert reachable(tail) == reachable(untouched)


@pytest.mark.parametrize("end", ["too late", "cancelled", "answered", "refused", "closed"])
async def test_nothing_is_left_of_a_long_poll_that_has_ended(clock: FakeClock, end: str) -> None:
    log = MemoryLog(FakeClock())
    polls = LongPolls(log, clock, wait_max_s=60)
    outcome = ""

    async def lookup() -> str | None:
        if outcome == "refused":
            raise PermissionError
        return outcome or None

    async def poll(job: str | None) -> str:
        async with polls.bounded_wait(30):
            return await polls.repeat(lookup, lambda head: log.wait(head, job))

    before = reachable(polls)
    polling = [asyncio.create_task(poll(job)) for job in (None, *JOBS)]
    await turns()
    assert reachable(polls) != before
    if end == "cancelled":
        for each in polling:
            each.cancel()
    elif end == "closed":
        polls.close()
    elif end in ("answered", "refused"):
        outcome = end
        for job in JOBS:
            await log.append(job, 0, LogWritten(1, "info"), actor="tester")
    else:
        await clock.advance(30)
    await asyncio.gather(*polling, return_exceptions=True)
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    left = reachable(polls)
    kinds = ("Future", "Task", "Timeout", "set")
    assert [left[kind] for kind in kinds] == [before[kind] for kind in kinds]


async def test_a_bounded_wait_ends_at_once_after_the_service_has_closed(clock: FakeClock) -> None:
    polls = LongPolls(MemoryLog(FakeClock()), clock, wait_max_s=60)
    polls.close()

    async def wait() -> None:
        async with polls.bounded_wait(30):
            await turns()

    with pytest.raises(TimeoutError):
        await wait()
