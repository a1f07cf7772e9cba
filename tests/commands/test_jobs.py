"""Commands load, decide and append, and repeat when another command was first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.cache import LRUCache
from eventjobs.commands.command_queue import CONFLICTS_MAX, CommandResult
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptFailed, LogWritten, ProgressReported, WebhookAdded
from eventjobs.domain.ids import new_id, parse_id
from eventjobs.domain.job import Job, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import (
    Conflict,
    EventjobsError,
    IdempotencyKeyReused,
    InvalidInput,
    JobExists,
    JobGone,
    JobNotFound,
    Rejected,
    StaleAttempt,
    WrongState,
)
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.service import Service
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog

SPEC = JobSpec("test", {"n": 1}, max_attempts=3)
OTHER = JobSpec("test", {"n": 2}, max_attempts=3)
A = job_id(1)


@pytest.fixture
async def jobs(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Jobs]:
    log = await SQLiteLog.open(tmp_path / "log.db", clock)
    yield Jobs(log, clock)
    await log.close()


async def submit(jobs: Jobs, spec: JobSpec = SPEC, **arguments: bool) -> CommandResult:
    return await jobs.submit(spec, actor="ann", job_id=A, **arguments)


async def run(jobs: Jobs) -> Job:
    await submit(jobs)
    return await jobs.start(A, worker="w")


async def all_of(*commands: Awaitable[object]) -> list[object]:
    return await asyncio.gather(*commands, return_exceptions=True)


# --- submitting


async def test_a_job_gets_an_id_of_its_own_and_keeps_one_it_is_given(jobs: Jobs) -> None:
    ids = [(await jobs.submit(SPEC, actor="ann")).job.job_id for _ in range(3)]
    assert len(set(ids)) == 3
    assert (await submit(jobs)).job.job_id == A


async def test_the_same_again_changes_nothing(jobs: Jobs) -> None:
    first = await submit(jobs)
    again = await submit(jobs)
    assert (first.changed, again.changed) == (True, False)
    assert again.job == first.job
    assert jobs.log.head == 1


async def test_an_id_means_one_specification_for_ever(jobs: Jobs) -> None:
    await submit(jobs)
    with pytest.raises(JobExists):
        await submit(jobs, OTHER)
    with pytest.raises(IdempotencyKeyReused):
        await submit(jobs, OTHER, key=True)
    await jobs.cancel(A, actor="ann")
    await jobs.expire(A, "ttl", actor="ann")
    for spec in (SPEC, OTHER):
        with pytest.raises(JobGone):
            await submit(jobs, spec)


async def test_of_many_equal_submissions_one_changes_something(jobs: Jobs) -> None:
    outcomes = await asyncio.gather(*(submit(jobs) for _ in range(64)))
    assert sum(each.changed for each in outcomes) == 1
    assert {each.job.version for each in outcomes} == {1}
    assert jobs.log.head == 1


async def test_of_two_specifications_that_race_for_an_id_one_is_refused(jobs: Jobs) -> None:
    outcomes = await all_of(*(submit(jobs, spec) for spec in (SPEC, OTHER) * 8))
    assert sum(isinstance(each, JobExists) for each in outcomes) == 8
    assert jobs.log.head == 1


# --- races


async def test_of_many_workers_that_claim_a_job_one_gets_it(jobs: Jobs) -> None:
    await submit(jobs)
    outcomes = await all_of(*(jobs.start(A, worker=f"w{n}") for n in range(50)))
    [won] = (each for each in outcomes if isinstance(each, Job))
    assert sum(isinstance(each, WrongState) for each in outcomes) == 49
    job = await jobs.load(A)
    assert job is not None
    assert (job.worker, job.attempt) == (won.worker, 1)


async def test_a_job_ends_once_whoever_ends_it(jobs: Jobs) -> None:
    await run(jobs)
    failed = AttemptFailed(1, "io", True, jobs.clock.now_us())
    outcomes = await all_of(
        *(jobs.complete(A, 1, None, actor="w") for _ in range(3)),
        *(jobs.fail(A, failed, actor="w") for _ in range(3)),
        *(jobs.release(A, 1, "shutdown", actor="w") for _ in range(3)),
    )
    assert sum(isinstance(each, Job) for each in outcomes) == 1
    assert sum(isinstance(each, StaleAttempt) for each in outcomes) == 8
    assert jobs.log.head == 3


async def test_no_command_is_lost_in_a_race(jobs: Jobs) -> None:
    """Each report is in the log, or its caller got an error."""
    await run(jobs)
    lines = [LogWritten(1, "info", f"line {n}") for n in range(40)]
    outcomes = await all_of(*(jobs.report(A, each, actor="w") for each in lines))
    recorded = [each.event for each in await jobs.log.read_job(A)][2:]
    assert recorded == [
        line for line, outcome in zip(lines, outcomes, strict=True) if isinstance(outcome, Job)
    ]
    lost = [each for each in outcomes if not isinstance(each, Job)]
    assert all(isinstance(each, Conflict) for each in lost)
    assert len(recorded) >= CONFLICTS_MAX


async def test_as_many_as_may_conflict_all_succeed(jobs: Jobs) -> None:
    await run(jobs)
    reports = [ProgressReported(1, n) for n in range(CONFLICTS_MAX)]
    outcomes = await all_of(*(jobs.report(A, each, actor="w") for each in reports))
    assert all(isinstance(each, Job) for each in outcomes)


async def test_a_job_cancelled_while_it_is_claimed_is_never_both(jobs: Jobs) -> None:
    for number in range(20):
        id = job_id(100 + number)
        await jobs.submit(SPEC, actor="ann", job_id=id)
        started, cancelled = await all_of(jobs.start(id, worker="w"), jobs.cancel(id, actor="ann"))
        job = fold(await jobs.log.read_job(id))
        assert job is not None
        assert isinstance(cancelled, CommandResult)
        assert isinstance(started, Job) == (job.status == "running")
        assert (job.status == "cancelled") != (job.status == "running")


# --- what there is not


COMMANDS: dict[str, Callable[[Jobs, str], Awaitable[object]]] = {
    "start": lambda jobs, id: jobs.start(id, worker="w"),
    "report": lambda jobs, id: jobs.report(id, ProgressReported(1), actor="w"),
    "complete": lambda jobs, id: jobs.complete(id, 1, None, actor="w"),
    "fail": lambda jobs, id: jobs.fail(id, AttemptFailed(1, "io", True), actor="w"),
    "release": lambda jobs, id: jobs.release(id, 1, "shutdown", actor="w"),
    "stopped": lambda jobs, id: jobs.cancel_attempt(id, 1, actor="w"),
    "cancel": lambda jobs, id: jobs.cancel(id, actor="ann"),
    "retry": lambda jobs, id: jobs.retry(id, actor="ann"),
    "expire": lambda jobs, id: jobs.expire(id, "ttl", actor="ann"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_a_command_on_no_job_is_refused(
    jobs: Jobs, command: Callable[[Jobs, str], Awaitable[object]]
) -> None:
    with pytest.raises(JobNotFound):
        await command(jobs, A)
    assert await jobs.load(A) is None
    assert jobs.log.head == 0


async def test_a_command_that_changes_nothing_says_so(jobs: Jobs) -> None:
    await run(jobs)
    assert (await jobs.cancel(A, actor="ann")).changed
    assert not (await jobs.cancel(A, actor="ann")).changed
    await jobs.cancel_attempt(A, 1, actor="w")
    assert not (await jobs.cancel(A, actor="ann")).changed
    assert (await jobs.retry(A, actor="ann")).changed
    assert not (await jobs.retry(A, actor="ann")).changed


async def test_who_did_it_is_recorded(jobs: Jobs) -> None:
    await run(jobs)
    await jobs.cancel(A, "enough", actor="bob")
    assert [each.actor for each in await jobs.log.read_job(A)] == ["ann", "w", "bob"]


# --- what is kept in memory


async def test_what_is_kept_in_memory_is_bounded(jobs: Jobs) -> None:
    for number in range(80):
        spec = JobSpec("test", "x" * 2**20)
        await jobs.submit(spec, actor="ann", job_id=job_id(number))
    assert jobs._cache._jobs._bytes <= 64 * 2**20
    assert 0 < len(jobs._cache._jobs) < 80
    await jobs.cancel(job_id(0), actor="ann")
    await jobs.cancel(job_id(79), actor="ann")


STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(sorted(COMMANDS))), max_size=30)


@given(STEPS)
async def test_what_is_kept_never_changes_an_outcome(steps: list[tuple[int, str]]) -> None:
    """One service that keeps jobs and one that keeps none do the same."""
    heads = []
    for entries_max in (10, 0):
        log = MemoryLog(FakeClock())
        jobs = Jobs(log, FakeClock())
        jobs._cache._jobs = LRUCache(entries_max, 2**20)
        await submit(jobs)
        outcomes: list[object] = []
        for number, command in steps:
            try:
                outcome = await COMMANDS[command](jobs, A)
                outcomes.append(outcome.changed if isinstance(outcome, CommandResult) else True)
            except Rejected as refusal:
                outcomes.append(type(refusal))
            if number:
                await jobs.load(A)
        heads.append((outcomes, [each.event for each in await log.read(0, 99)]))
    assert heads[0] == heads[1]


async def test_what_another_service_wrote_is_met_as_a_conflict_and_read(jobs: Jobs) -> None:
    """Two of them on one log: what one keeps is behind, and it is none the worse for it."""
    other = Jobs(jobs.log, jobs.clock)
    await submit(jobs)
    await other.start(A, worker="w")
    assert (await jobs.load(A)) != (await other.load(A))
    assert (await jobs.cancel(A, actor="ann")).job.status == "running"
    await other.complete(A, 1, None, actor="w")
    with pytest.raises(WrongState):
        await jobs.retry(A, actor="ann")


async def test_a_command_is_refused_by_the_log_and_not_by_what_is_kept_of_it(jobs: Jobs) -> None:
    other = Jobs(jobs.log, jobs.clock)
    await run(jobs)
    await other.fail(A, AttemptFailed(1, "bug", False), actor="w")
    assert (await jobs.retry(A, actor="ann")).changed


async def test_the_current_job_is_never_behind_the_log(jobs: Jobs) -> None:
    other = Jobs(jobs.log, jobs.clock)
    await submit(jobs)
    await other.start(A, worker="w")
    job = await jobs.current(A)
    assert job is not None
    assert job.status == "running"
    assert await jobs.current(job_id(9)) is None


class LateLog(MemoryLog):
    """A log whose first read returns late, as from a thread that had to wait."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.answers = asyncio.Event()
        self.first = True

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        events = await super().read_job(job_id, after, limit)
        if self.first:
            self.first = False
            await self.answers.wait()
        return events


async def test_a_read_that_is_late_does_not_bring_back_what_was(clock: FakeClock) -> None:
    """A stale read was once cached: the job seemed to run for ever and could not be retried."""
    log = LateLog()
    await run(Jobs(log, clock))
    jobs = Jobs(log, clock)  # with nothing in memory
    loading = asyncio.create_task(jobs.load(A))
    for _ in range(3):
        await asyncio.sleep(0)
    await jobs.fail(A, AttemptFailed(1, "bug", False), actor="w")
    log.answers.set()
    await loading
    assert (await jobs.retry(A, actor="ann")).changed


async def test_a_job_that_comes_while_it_is_looked_for_is_found(clock: FakeClock) -> None:
    log = LateLog()
    cancelling = asyncio.create_task(Jobs(log, clock).cancel(A, actor="ann"))
    for _ in range(3):
        await asyncio.sleep(0)
    await submit(Jobs(log, clock))
    log.answers.set()
    assert (await cancelling).changed


# --- ids


def test_new_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    ids = [new_id(1_735_689_600_000_000 + n) for n in range(2000)]
    assert ids == sorted(ids)
    for each in ids[:10]:
        assert UUID(each).version == 7
        assert UUID(each).variant == "specified in RFC 4122"
        assert int(each.replace("-", "")[:12], 16) == 1_735_689_600_000


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id(0) for _ in range(1000)}) == 1000


@given(st.uuids())
def test_an_id_has_one_written_form(id: UUID) -> None:
    for written in (str(id), str(id).upper(), id.hex):
        assert parse_id(written) == str(id)


@pytest.mark.parametrize("text", ["", "1", "g" * 32, str(UUID(int=0)) + "0", "\uff10" * 32, "../x"])
def test_what_is_no_uuid_is_no_id(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_id(text)


# --- values that commands refuse


async def test_commands_from_python_are_checked(service: Service) -> None:
    job_id = "8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11"
    url = "http://127.0.0.1/"
    wrong: list[Callable[[], Any]] = [
        lambda: service.jobs.cancel(job_id, 5, actor="a"),  # type: ignore[arg-type]
        lambda: service.jobs.cancel(job_id, "a" * 1001, actor="a"),
        lambda: service.jobs.retry(job_id, b"", actor="a"),  # type: ignore[arg-type]
        lambda: service.jobs.retry(job_id, from_step=["a"], actor="a"),  # type: ignore[arg-type]
        lambda: service.jobs.retry(job_id, from_step="a", restart=True, actor="a"),
        lambda: service.jobs.expire(job_id, None, actor="a"),  # type: ignore[arg-type]
        lambda: service.pauses.pause("type", 5, actor="a"),  # type: ignore[arg-type]
        lambda: service.pauses.pause("kind", "a", actor="a"),  # type: ignore[arg-type]
        lambda: service.pauses.pause("type", "a", {}, actor="a"),  # type: ignore[arg-type]
        lambda: service.pauses.pause("type", "a", actor=5),  # type: ignore[arg-type]
        lambda: service.pauses.resume("queue", "a" * 201, actor="a"),
        lambda: service.webhooks.add(WebhookAdded("JobCompleted", (), None, url), actor="a"),  # type: ignore[arg-type]
        lambda: service.webhooks.add(WebhookAdded((), (5,), None, url), actor="a"),  # type: ignore[arg-type]
        lambda: service.webhooks.add(WebhookAdded((), (), 5, url), actor="a"),  # type: ignore[arg-type]
        lambda: service.webhooks.add(WebhookAdded((), (), None, None), actor="a"),
        lambda: service.webhooks.add({"url": url}, actor="a"),  # type: ignore[arg-type]
        lambda: service.deliveries.redeliver(job_id, -1, 1, actor="a"),
        lambda: service.deliveries.redeliver(job_id, 0, 1.5, actor="a"),  # type: ignore[arg-type]
        lambda: service.webhooks.remove(job_id, 5, actor="a"),  # type: ignore[arg-type]
        lambda: service.webhooks.remove(5, None, actor="a"),  # type: ignore[arg-type]
    ]
    for command in wrong:
        with pytest.raises(EventjobsError):
            await command()
