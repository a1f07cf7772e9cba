"""What every event log does. A new log is one more case in *opened*, and nothing else here."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event, JobSubmitted
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Conflict, LogError, LogUnavailable, NotJSON
from eventjobs.log import APPEND_MAX, EventLog, NewEvent, follow
from eventjobs.log.sqlite import SQLiteLog
from tests.support.clock import FakeClock
from tests.support.histories import events, job_id, texts
from tests.support.memory_log import MemoryLog
from tests.support.views import quick_folder

SUBMITTED = JobSubmitted(JobSpec("test", {"n": 1}))
A, B, C = job_id(1), job_id(2), job_id(3)


@asynccontextmanager
async def open_log(kind: str, directory: Path, clock: FakeClock) -> AsyncIterator[EventLog]:
    log: EventLog = (
        MemoryLog(clock) if kind == "memory" else await SQLiteLog.open(directory / "log.db", clock)
    )
    try:
        yield log
    finally:
        await log.close()


@pytest.fixture(scope="session", params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def log(kind: str, tmp_path: Path, clock: FakeClock) -> AsyncIterator[EventLog]:
    async with open_log(kind, tmp_path, clock) as log:
        yield log


@pytest.fixture
async def again(
    kind: str, log: EventLog, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[Callable[[], Awaitable[EventLog]]]:
    """The same log with nothing in memory, as far as it is kept anywhere else."""
    reopened: list[EventLog] = []

    async def again() -> EventLog:
        if kind == "memory":
            return log
        await log.close()
        for each in reopened:
            await each.close()
        reopened.append(await SQLiteLog.open(tmp_path / "log.db", clock))
        return reopened[-1]

    yield again
    for each in reopened:
        await each.close()


async def add(log: EventLog, job_id: str, version: int, event: Event = SUBMITTED) -> Recorded:
    return await log.append(job_id, version, event, actor="tester")


async def fill(log: EventLog) -> list[Recorded]:
    """Three jobs with three events each, interleaved."""
    return [await add(log, job, version) for version in range(3) for job in (A, B, C)]


# --- append


async def test_an_event_is_recorded_with_its_place_and_time(
    log: EventLog, clock: FakeClock
) -> None:
    await add(log, A, 0)
    await clock.advance(1.5)
    recorded = await log.append(B, 0, SUBMITTED, actor="ann")
    stored = encode(SUBMITTED)
    assert recorded == Recorded(2, B, 1, clock.now_us(), "ann", SUBMITTED, *stored)


async def test_positions_are_dense_and_versions_too(log: EventLog) -> None:
    assert log.head == 0
    recorded = await fill(log)
    assert [each.position for each in recorded] == list(range(1, 10))
    assert [each.version for each in recorded if each.job_id == B] == [1, 2, 3]
    assert log.head == 9


@pytest.mark.parametrize("version", [0, 1, 3, 99])
async def test_a_job_at_another_version_is_a_conflict(log: EventLog, version: int) -> None:
    await add(log, A, 0)
    await add(log, A, 1)
    with pytest.raises(Conflict, match="is at version 2"):
        await add(log, A, version)
    assert log.head == 2
    await add(log, A, 2)


async def test_a_new_job_begins_at_version_zero(log: EventLog) -> None:
    with pytest.raises(Conflict):
        await add(log, A, 1)
    assert (await add(log, A, 0)).position == 1


async def test_what_cannot_be_stored_fails_alone(log: EventLog) -> None:
    """A header that is not UTF-8 is read as lone surrogates, which no engine stores."""
    good = [asyncio.create_task(add(log, job, 0)) for job in (A, B)]
    bad = [
        asyncio.create_task(log.append(job_id(8), 0, SUBMITTED, actor="\udcff")),
        asyncio.create_task(add(log, "\udcff", 0)),
        asyncio.create_task(log.append(job_id(7), 0, SUBMITTED, actor="a\0b")),
        asyncio.create_task(add(log, job_id(9), 0, JobSubmitted(JobSpec("test", priority=2**64)))),
    ]
    with pytest.raises(NotJSON):  # no event can hold such a payload
        JobSpec("test", 2**64)
    outcomes = await asyncio.gather(*bad, return_exceptions=True)
    assert all(isinstance(each, TypeError | ValueError) for each in outcomes)
    await asyncio.gather(*good)
    assert (await add(log, C, 0)).position == 3


appends = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40)


@settings(max_examples=60)
@given(appends)
async def test_a_conflict_never_fails_its_neighbours(
    kind: str, appends: list[tuple[int, int]]
) -> None:
    """Appends that race are decided one by one in the order they came, chains v, v+1 too."""
    with quick_folder() as folder:
        async with open_log(kind, folder, FakeClock()) as log:
            outcomes = await asyncio.gather(
                *(add(log, job_id(job), version) for job, version in appends),
                return_exceptions=True,
            )
            versions = dict.fromkeys(range(4), 0)
            head = 0
            for (job, version), outcome in zip(appends, outcomes, strict=True):
                if version == versions[job]:
                    head += 1
                    versions[job] += 1
                    assert isinstance(outcome, Recorded)
                    assert (outcome.position, outcome.version) == (head, versions[job])
                else:
                    assert isinstance(outcome, Conflict)
            assert log.head == head
            assert [each.position for each in await log.read(0, 99)] == list(range(1, head + 1))


async def test_of_many_that_race_for_one_version_one_wins(log: EventLog) -> None:
    async def claim(number: int) -> bool:
        try:
            await log.append(A, 0, SUBMITTED, actor=f"worker-{number}")
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*map(claim, range(200)))) == 1
    assert log.head == 1


# --- read


async def test_a_page_is_what_comes_after_a_position_up_to_a_limit(
    log: EventLog, again: Callable[[], Awaitable[EventLog]]
) -> None:
    recorded = await fill(log)
    for _ in range(2):
        for after in range(12):
            for limit in (1, 2, 8, 9, 10):
                assert await log.read(after, limit) == recorded[after : after + limit]
        assert await log.read(0) == recorded
        log = await again()


async def test_a_jobs_page_is_its_own_events_after_a_position(
    log: EventLog, again: Callable[[], Awaitable[EventLog]]
) -> None:
    recorded = await fill(log)
    for _ in range(2):
        for job in (A, B, C, job_id(4)):
            for after in range(12):
                wanted = [e for e in recorded if e.job_id == job and e.position > after]
                assert await log.read_job(job, after) == wanted
                for limit in (1, 2, 3):
                    assert await log.read_job(job, after, limit) == wanted[:limit]
        log = await again()


async def test_pages_join_what_is_in_memory_and_what_is_not(
    log: EventLog, again: Callable[[], Awaitable[EventLog]]
) -> None:
    recorded = await fill(log)
    log = await again()
    recorded += [await add(log, A, version) for version in range(3, 6)]
    for after in range(13):
        for limit in (1, 4, 12):
            page = await log.read(after, limit)
            assert page == recorded[after : after + limit]
        assert await log.read_job(A, after) == [
            each for each in recorded if each.job_id == A and each.position > after
        ]


actors = texts.map(lambda text: text.replace("\0", ""))


@settings(max_examples=30)
@given(st.lists(st.tuples(actors, events), min_size=1, max_size=20))
async def test_an_event_is_read_as_it_was_appended(
    kind: str, submissions: list[tuple[str, Event]]
) -> None:
    clock = FakeClock()
    with quick_folder() as folder:
        async with open_log(kind, folder, clock) as log:
            recorded = [
                await log.append(A, version, event, actor=actor)
                for version, (actor, event) in enumerate(submissions)
            ]
            assert await log.read(0) == recorded
            if kind == "memory":
                return
        async with open_log(kind, folder, clock) as log:
            assert await log.read(0) == recorded
            assert await log.read_job(A) == recorded
            assert [each.json() for each in await log.read(0)] == [each.json() for each in recorded]


async def test_a_reader_sees_a_prefix_of_the_log_at_every_moment(log: EventLog) -> None:
    """Position n is visible only when 1 to n-1 are."""

    async def write(number: int) -> None:
        for version in range(20):
            await add(log, job_id(number), version)

    writing = asyncio.gather(*map(write, range(5)))
    while not writing.done():
        head = log.head
        seen = [each.position for each in await log.read(0, 1000)]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) >= head
        await asyncio.sleep(0)
    await writing
    assert log.head == 100


# --- append many


async def test_events_appended_together_are_recorded_in_order(log: EventLog) -> None:
    """Also several of one job; a follower gets all of them at once."""
    following = asyncio.create_task(anext(follow_batches(log, 0, 512)))
    await turns()
    together = [new(A, 0), new(B, 0), new(A, 1), new(A, 2), new(C, 0)]
    outcomes = await log.append_many(together)
    assert await following == outcomes == await log.read(0)
    assert [(each.position, each.job_id, each.version) for each in await log.read(0)] == [
        (1, A, 1),
        (2, B, 1),
        (3, A, 2),
        (4, A, 3),
        (5, C, 1),
    ]


async def test_a_conflict_is_of_its_event_alone(log: EventLog) -> None:
    await add(log, A, 0)
    outcomes = await log.append_many([new(B, 0), new(A, 0), new(A, 1), new(C, 1), new(A, 2)])
    assert [type(each) for each in outcomes] == [Recorded, Conflict, Recorded, Conflict, Recorded]
    assert "is at version 1, not 0" in str(outcomes[1])
    assert [each.position for each in outcomes if isinstance(each, Recorded)] == [2, 3, 4]


async def test_conflicts_alone_append_nothing(log: EventLog) -> None:
    await add(log, A, 0)
    outcomes = await log.append_many([new(A, 0), new(B, 7)])
    assert [type(each) for each in outcomes] == [Conflict] * 2
    assert log.head == 1


async def test_of_events_appended_together_all_are_stored_or_none(log: EventLog) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        await log.append_many([new(A, 0), NewEvent(B, 0, SUBMITTED, "\udcff")])
    for count in (0, APPEND_MAX + 1):
        with pytest.raises(ValueError, match=f"{count} events"):
            await log.append_many([new(A, n) for n in range(count)])
    assert log.head == 0
    assert len(await log.append_many([new(A, n) for n in range(APPEND_MAX)])) == APPEND_MAX


def new(job_id: str, version: int) -> NewEvent:
    return NewEvent(job_id, version, SUBMITTED, "tester")


# --- wait


async def test_waiting_ends_when_there_is_more(log: EventLog) -> None:
    waiting = asyncio.create_task(log.wait(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    await add(log, A, 0)
    assert await waiting == 1
    assert await log.wait(0) == 1, "no need to wait for what is there"


async def test_waiting_for_a_position_to_come_outlasts_those_before(log: EventLog) -> None:
    waiting = asyncio.create_task(log.wait(2))
    for version in range(2):
        await add(log, A, version)
        await turns()
        assert not waiting.done()
    await add(log, A, 2)
    assert await waiting == 3


async def test_who_waits_for_a_job_is_woken_by_that_job_alone(log: EventLog) -> None:
    for_a = asyncio.create_task(log.wait(0, A))
    for_b = [asyncio.create_task(log.wait(0, B)) for _ in range(3)]
    for_all = asyncio.create_task(log.wait(0))
    await turns()
    await add(log, B, 0)
    await turns()
    assert all(each.done() for each in for_b)
    assert for_all.done()
    assert not for_a.done()
    await add(log, A, 0)
    assert await for_a == 2


async def test_events_of_others_from_before_the_wait_do_not_end_it(log: EventLog) -> None:
    await add(log, A, 0)
    await add(log, B, 0)
    waiting = asyncio.create_task(log.wait(1, A))
    assert await log.wait(0, A) == 2, "no need to wait for what is there"
    await turns()
    await add(log, B, 1)
    await turns()
    assert not waiting.done()
    await add(log, A, 1)
    assert await waiting == 4


async def test_a_closed_log_ends_every_wait(log: EventLog) -> None:
    waiting = [asyncio.create_task(log.wait(0, job)) for job in (A, None)]
    await turns()
    await log.close()
    for each in (*waiting, log.wait(0, A), log.wait(0)):
        with pytest.raises(LogUnavailable):
            await each


async def test_a_waiter_that_gives_up_is_forgotten(log: EventLog) -> None:
    waiting = [asyncio.create_task(log.wait(0, job)) for job in (A, A, B, None)]
    await turns()
    for each in waiting[1:]:
        each.cancel()
    await turns()
    await add(log, A, 0)
    assert await waiting[0] == 1


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- follow


async def test_a_follower_misses_nothing_and_repeats_nothing(log: EventLog) -> None:
    async def write(number: int) -> None:
        for version in range(30):
            await add(log, job_id(number), version)

    async def watch(after: int, limit: int) -> list[int]:
        seen: list[int] = []
        async with aclosing(follow_batches(log, after, limit)) as batches:
            async for batch in batches:
                assert 0 < len(batch) <= limit
                seen += [each.position for each in batch]
                if seen[-1] == 120:
                    break
        return seen

    starts = [(after, limit) for after in (0, 1, 50, 119) for limit in (1, 3, 512)]
    watching = [asyncio.create_task(watch(*each)) for each in starts]
    await asyncio.gather(*map(write, range(4)))
    for (after, _), each in zip(starts, watching, strict=True):
        assert await each == list(range(after + 1, 121))


def follow_batches(log: EventLog, after: int, limit: int) -> AsyncGenerator[list[Recorded], None]:
    return cast(AsyncGenerator[list[Recorded], None], follow(log, after, limit))


async def test_a_follower_of_a_reopened_log_goes_on_where_it_was(
    log: EventLog, again: Callable[[], Awaitable[EventLog]]
) -> None:
    recorded = await fill(log)
    log = await again()
    seen: list[Recorded] = []
    writing = asyncio.create_task(add(log, A, 3))
    async with aclosing(follow_batches(log, 4, 2)) as batches:
        async for batch in batches:
            seen += batch
            if len(seen) == 6:
                break
    assert seen == [*recorded[4:], await writing]


# --- cancel, close


async def test_a_cancelled_append_may_have_happened_and_harms_nobody(log: EventLog) -> None:
    for number in range(40):
        tasks = [asyncio.create_task(add(log, job_id(job), 0)) for job in (number, number + 100)]
        for _ in range(number % 4):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        await tasks[1]
    seen = await log.read(0, 1000)
    assert [each.position for each in seen] == list(range(1, log.head + 1))
    assert {job_id(number + 100) for number in range(40)} <= {each.job_id for each in seen}
    for number in range(40):
        version = len(await log.read_job(job_id(number)))
        assert version in {0, 1}
        await add(log, job_id(number), version)


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(
    log: EventLog, again: Callable[[], Awaitable[EventLog]]
) -> None:
    accepted = [asyncio.create_task(add(log, job_id(job), 0)) for job in range(50)]
    await asyncio.sleep(0)
    await log.close()
    recorded = await asyncio.gather(*accepted)
    with pytest.raises(LogUnavailable):
        await add(log, A, 1)
    log = await again()
    assert await log.read(0) == recorded


async def test_closing_tells_those_who_wait(log: EventLog) -> None:
    waiting = [asyncio.create_task(log.wait(0, job)) for job in (None, A, B)]
    await turns()
    await log.close()
    for each in waiting:
        with pytest.raises(LogUnavailable):
            await each
    with pytest.raises(LogUnavailable):
        await log.wait(0)


async def test_closing_twice_is_harmless_at_once_or_later(log: EventLog) -> None:
    await add(log, A, 0)
    await asyncio.gather(log.close(), log.close())
    await log.close()


async def test_a_close_that_is_cancelled_loses_nothing(log: EventLog) -> None:
    accepted = [asyncio.create_task(add(log, job_id(job), 0)) for job in range(50)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert len(await asyncio.gather(*accepted)) == 50
    await log.close()


async def test_a_log_keeps_its_id_and_shares_it_with_no_other(
    kind: str,
    log: EventLog,
    again: Callable[[], Awaitable[EventLog]],
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    async with open_log(kind, tmp_path / "other", FakeClock()) as other:
        assert other.log_id != log.log_id
    assert (await again()).log_id == log.log_id


async def test_every_refusal_is_a_log_error(log: EventLog) -> None:
    await log.close()
    with pytest.raises(LogError):
        await add(log, A, 0)
