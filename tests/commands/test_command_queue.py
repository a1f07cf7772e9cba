"""Commands on one job that wait for a commit are decided and appended together."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.commands.command_queue import CommandResult
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import Event, LogWritten
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Conflict, DiskFull, EventjobsError, LogError, StaleAttempt
from eventjobs.log import NewEvent
from tests.commands.test_jobs import COMMANDS
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog

A = job_id(1)


class SlowLog(MemoryLog):
    """Each append waits for *go*, and is counted as a commit."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.go = asyncio.Event()
        self.go.set()
        self.commits: list[int] = []
        self.error: LogError | None = None

    async def append_many(self, events: Sequence[NewEvent]) -> list[Recorded | Conflict]:
        await self.go.wait()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.commits.append(len(events))
        return await super().append_many(events)


@pytest.fixture
def log() -> SlowLog:
    return SlowLog()


@pytest.fixture
async def jobs(log: SlowLog) -> Jobs:
    """With job A, which runs."""
    jobs = Jobs(log, FakeClock())
    await jobs.submit(JobSpec("test", max_attempts=3), actor="ann", job_id=A)
    await jobs.start(A, worker="w")
    log.commits.clear()
    return jobs


async def report(jobs: Jobs, number: int, actor: str = "w") -> Job:
    return await jobs.report(A, LogWritten(1, "info", f"{number}"), actor=actor)


async def lines(log: MemoryLog) -> list[str | None]:
    events = [each.event for each in await log.read_job(A)]
    return [each.message for each in events if isinstance(each, LogWritten)]


async def outcomes_of(*commands: Awaitable[object]) -> list[object]:
    return await asyncio.gather(*commands, return_exceptions=True)


async def test_what_waits_for_a_commit_is_the_next_one(jobs: Jobs, log: SlowLog) -> None:
    changed = await asyncio.gather(*(report(jobs, n) for n in range(64)))
    assert log.commits == [1, 63]
    assert [each.version for each in changed] == list(range(3, 67))
    assert [each.lines for each in changed] == list(range(1, 65))
    assert await lines(log) == [str(n) for n in range(64)]
    assert await jobs.load(A) == changed[-1] == await jobs.current(A)


async def test_a_refusal_is_decided_on_what_is_durable(jobs: Jobs, log: SlowLog) -> None:
    """And what comes after it is done all the same."""
    outcomes = await outcomes_of(
        report(jobs, 0),
        report(jobs, 1),
        jobs.cancel(A, actor="ann"),
        jobs.cancel(A, actor="bob"),
        jobs.cancel_attempt(A, 1, actor="w"),
        report(jobs, 2),
        jobs.retry(A, actor="ann"),
        jobs.cancel(A, actor="ann"),
    )
    assert isinstance(outcomes[5], StaleAttempt)
    assert isinstance(outcomes[3], CommandResult)
    assert not outcomes[3].changed
    assert [each.type for each in await log.read_job(A)][2:] == [
        "LogWritten",
        "LogWritten",
        "CancelRequested",
        "JobCancelled",
        "JobRetried",
        "JobCancelled",
    ]
    assert log.commits == [1, 2, 1, 2]


async def test_what_cannot_be_stored_fails_alone(jobs: Jobs, log: SlowLog) -> None:
    outcomes = await outcomes_of(*(report(jobs, n, "\udcff" if n == 3 else "w") for n in range(6)))
    assert [n for n, each in enumerate(outcomes) if isinstance(each, ValueError)] == [3]
    assert await lines(log) == ["0", "1", "2", "4", "5"]


async def test_a_log_that_refuses_refuses_all_and_none_of_the_next(
    jobs: Jobs, log: SlowLog
) -> None:
    log.error = DiskFull()
    outcomes = await outcomes_of(*(report(jobs, n) for n in range(5)))
    assert {type(each) for each in outcomes} == {DiskFull}
    log.error = None
    await asyncio.gather(*(report(jobs, n) for n in range(5, 8)))
    assert await lines(log) == ["5", "6", "7"]


async def test_a_caller_that_leaves_takes_nobody_with_it(jobs: Jobs, log: SlowLog) -> None:
    """What was being appended may be in the log; what waited for its turn is not."""
    log.go.clear()
    reports = [asyncio.create_task(report(jobs, n)) for n in range(5)]
    await asyncio.sleep(0)
    for left in (0, 3):
        reports[left].cancel()
    await asyncio.sleep(0)
    log.go.set()
    outcomes = await outcomes_of(*reports)
    assert [type(each) for each in outcomes] == [
        asyncio.CancelledError,
        Job,
        Job,
        asyncio.CancelledError,
        Job,
    ]
    assert await lines(log) in (["1", "2", "4"], ["0", "1", "2", "4"])


async def test_a_stale_job_is_read_again(jobs: Jobs, log: SlowLog) -> None:
    other = Jobs(log, FakeClock())
    await jobs.load(A)
    await asyncio.gather(*(report(other, n) for n in range(3)))
    await asyncio.gather(*(report(jobs, n) for n in range(3, 9)))
    assert await lines(log) == [str(n) for n in range(9)]


@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=12))
async def test_together_they_do_what_they_do_one_by_one(names: list[str]) -> None:
    results = []
    for together in (True, False):
        log = SlowLog()
        jobs = Jobs(log, FakeClock())
        await jobs.submit(JobSpec("test", max_attempts=3), actor="ann", job_id=A)
        commands = [COMMANDS[name](jobs) for name in names]
        if together:
            outcomes = await outcomes_of(*commands)
        else:
            outcomes = [(await outcomes_of(each))[0] for each in commands]
        kinds = [type(each) if isinstance(each, EventjobsError) else each for each in outcomes]
        results.append((kinds, [columns(each) for each in await log.read(0)]))
    assert results[0] == results[1]


def columns(recorded: Recorded) -> tuple[int, int, Event, str]:
    return recorded.position, recorded.version, recorded.event, recorded.actor
