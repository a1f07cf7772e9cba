"""Commands that come together, on one job or on several, are decided and appended together."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.commands.command_queue import TOGETHER_MAX, CommandResult
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import Event, LogWritten
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import (
    Conflict,
    DiskFull,
    EventjobsError,
    LogError,
    OutcomeUnknown,
    StaleAttempt,
    WrongState,
)
from eventjobs.log import NewEvent
from tests.commands.test_jobs import COMMANDS
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.waiting import turns

A = job_id(1)
OTHERS = [job_id(2 + number) for number in range(5)]


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


# --- commands on several jobs


async def submit_others(jobs: Jobs, log: SlowLog) -> None:
    for each in OTHERS:
        await jobs.submit(JobSpec("test"), actor="ann", job_id=each)
    log.commits.clear()


def start_others(jobs: Jobs, actor: str = "w") -> list[asyncio.Task[Job]]:
    return [asyncio.create_task(jobs.start(each, worker=actor)) for each in OTHERS]


async def test_commands_on_several_jobs_share_a_commit(jobs: Jobs, log: SlowLog) -> None:
    await submit_others(jobs, log)
    started = await asyncio.gather(*start_others(jobs))
    assert [each.job_id for each in started] == OTHERS
    assert {each.status for each in started} == {"running"}
    ended = await asyncio.gather(*(jobs.complete(each, 1, None, actor="w") for each in OTHERS))
    assert {each.status for each in ended} == {"completed"}
    assert log.commits == [5, 5]


async def test_a_job_in_a_commit_takes_commands_for_the_next_one(jobs: Jobs, log: SlowLog) -> None:
    await submit_others(jobs, log)
    log.go.clear()
    starts = start_others(jobs)
    await turns()
    ends = [asyncio.create_task(jobs.complete(each, 1, None, actor="w")) for each in OTHERS]
    await turns()
    line = asyncio.create_task(report(jobs, 0))
    await turns()
    log.go.set()
    await asyncio.gather(*starts, *ends, line)
    assert log.commits == [5, 1, 5]


async def test_a_large_number_of_commands_is_several_appends(jobs: Jobs, log: SlowLog) -> None:
    ids = [job_id(100 + number) for number in range(TOGETHER_MAX + 3)]
    for each in ids:
        await jobs.submit(JobSpec("test"), actor="ann", job_id=each)
    log.commits.clear()
    await asyncio.gather(*(jobs.start(each, worker="w") for each in ids))
    assert log.commits == [TOGETHER_MAX, 3]


async def test_a_conflict_is_of_its_job_alone(jobs: Jobs, log: SlowLog) -> None:
    """It is decided again on the job as another has changed it."""
    await submit_others(jobs, log)
    other = Jobs(log, FakeClock())
    await other.cancel(OTHERS[1], actor="ann")
    outcomes = await outcomes_of(*start_others(jobs))
    assert [type(each) for each in outcomes] == [Job, WrongState, Job, Job, Job]
    await other.current(OTHERS[2])
    await other.cancel(OTHERS[2], actor="ann")
    ends = await outcomes_of(*(jobs.release(each, 1, "x", actor="w") for each in OTHERS))
    assert [type(each) for each in ends] == [Job, StaleAttempt, Job, Job, Job]
    assert [one.type for one in await log.read_job(OTHERS[2])][2:] == [
        "CancelRequested",
        "JobCancelled",
    ]


async def test_what_cannot_be_stored_fails_alone_among_other_jobs(jobs: Jobs, log: SlowLog) -> None:
    await submit_others(jobs, log)
    actors = ["w", "w", "\udcff", "w", "w"]
    starts = [jobs.start(each, worker=by) for each, by in zip(OTHERS, actors, strict=True)]
    outcomes = await outcomes_of(*starts)
    assert [n for n, each in enumerate(outcomes) if isinstance(each, ValueError)] == [2]
    assert [n for n, each in enumerate(outcomes) if isinstance(each, Job)] == [0, 1, 3, 4]
    assert (await jobs.start(OTHERS[2], worker="w")).status == "running"


@pytest.mark.parametrize("error", [DiskFull(), OutcomeUnknown()])
async def test_an_append_that_fails_fails_each_of_its_commands(
    jobs: Jobs, log: SlowLog, error: LogError
) -> None:
    await submit_others(jobs, log)
    log.error = error
    assert await outcomes_of(*start_others(jobs)) == [error] * 5
    log.error = None
    assert [type(each) for each in await outcomes_of(*start_others(jobs))] == [Job] * 5


async def test_an_append_of_unknown_outcome_is_read_before_the_next_decision(
    jobs: Jobs, log: SlowLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit_others(jobs, log)
    with monkeypatch.context() as patch:

        async def unknown(new: NewEvent) -> None:
            raise OutcomeUnknown

        at_each_append(patch, log, after=unknown)
        outcomes = await outcomes_of(*start_others(jobs))
        assert [type(each) for each in outcomes] == [OutcomeUnknown] * 5
    outcomes = await outcomes_of(*start_others(jobs))
    assert [type(each) for each in outcomes] == [WrongState] * 5
    for each in OTHERS:
        assert [one.type for one in await log.read_job(each)] == ["JobSubmitted", "AttemptStarted"]


async def test_a_caller_that_leaves_does_not_change_what_becomes_of_other_jobs(
    jobs: Jobs, log: SlowLog
) -> None:
    await submit_others(jobs, log)
    log.go.clear()
    starts = start_others(jobs)
    await turns()
    for left in (0, 3):
        starts[left].cancel()
    await turns()
    log.go.set()
    outcomes = await outcomes_of(*starts)
    lost = asyncio.CancelledError
    assert [type(each) for each in outcomes] == [lost, Job, Job, lost, Job]
    ended = await outcomes_of(*(jobs.complete(each, 1, None, actor="w") for each in OTHERS))
    assert [type(each) for each in ended] == [Job] * 5


async def test_a_job_that_is_read_holds_up_no_other(
    jobs: Jobs, log: SlowLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, read, go = Jobs(log, FakeClock()), log.read_job, asyncio.Event()
    await submit_others(cold, log)

    async def read_late(job_id: str, *more: Any) -> list[Recorded]:
        if job_id == A:
            await go.wait()
        return await read(job_id, *more)

    monkeypatch.setattr(log, "read_job", read_late)
    late = asyncio.create_task(report(cold, 0))
    await asyncio.gather(*start_others(cold))
    assert not late.done()
    go.set()
    assert (await late).lines == 1


SEVERAL = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(sorted(COMMANDS))), max_size=20)


@given(SEVERAL)
async def test_commands_on_several_jobs_do_what_they_do_one_by_one(
    commands: list[tuple[int, str]],
) -> None:
    results = []
    for together in (True, False):
        log = SlowLog()
        jobs = Jobs(log, FakeClock())
        ids = [job_id(number) for number in range(1, 4)]
        for each in ids:
            await jobs.submit(JobSpec("test", max_attempts=3), actor="ann", job_id=each)
        calls = [COMMANDS[name](jobs, job_id(number)) for number, name in commands]
        if together:
            outcomes = await outcomes_of(*calls)
        else:
            outcomes = [(await outcomes_of(each))[0] for each in calls]
        kinds = [type(each) for each in outcomes]
        events = [[(one.version, one.event) for one in await log.read_job(each)] for each in ids]
        results.append((kinds, events))
    assert results[0] == results[1]


# --- commands on one job


@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=12))
async def test_together_they_do_what_they_do_one_by_one(names: list[str]) -> None:
    results = []
    for together in (True, False):
        log = SlowLog()
        jobs = Jobs(log, FakeClock())
        await jobs.submit(JobSpec("test", max_attempts=3), actor="ann", job_id=A)
        commands = [COMMANDS[name](jobs, A) for name in names]
        if together:
            outcomes = await outcomes_of(*commands)
        else:
            outcomes = [(await outcomes_of(each))[0] for each in commands]
        kinds = [type(each) if isinstance(each, EventjobsError) else each for each in outcomes]
        results.append((kinds, [columns(each) for each in await log.read(0)]))
    assert results[0] == results[1]


def columns(recorded: Recorded) -> tuple[int, int, Event, str]:
    return recorded.position, recorded.version, recorded.event, recorded.actor
