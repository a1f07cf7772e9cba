"""What was acknowledged survives SIGKILL, and the campaign notices what does not."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from eventjobs.domain import events as e
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Conflict
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.projections.store import Store
from eventjobs.tools.soak.kills.campaign import Campaign, Plan, campaign
from eventjobs.tools.soak.kills.checker import Checker, Row
from eventjobs.tools.soak.kills.history import Claim, Due, History, Stream
from eventjobs.tools.soak.kills.server import APP, Life
from tests.conftest import CAMPAIGN_RESULT
from tests.support.log_rows import Entry, rows_of

KILLS = 200


@pytest.mark.timeout(900)
def test_two_hundred_kills_under_load_break_no_promise(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = asyncio.run(campaign(tmp_path / "data", Plan(KILLS, seed=1)))
    record_property(CAMPAIGN_RESULT, str(outcome))
    assert not outcome.faults
    assert outcome.kills == KILLS
    assert outcome.checker.recovered, "no request was cut off between its commit and its answer"


def test_a_fork_of_the_nursery_imports_nothing(tmp_path: Path) -> None:
    """Each kill would pay for it."""
    assert imports_of_nursery(tmp_path, forks=1) == imports_of_nursery(tmp_path, forks=0)


def imports_of_nursery(folder: Path, forks: int) -> list[str]:
    """Modules that the nursery and a forked service import, but for small ones of typer."""
    command = [sys.executable, "-X", "importtime", "-m", "eventjobs.tools.soak.kills.nursery"]
    command += ["--data", str(folder / "data"), "--port", "0", "--app", APP]
    with (
        (folder / "imports").open("w+") as stderr,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=stderr, bufsize=0) as nursery,
    ):
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        if forks:
            nursery.stdin.write(b".")
            assert nursery.stdout.readline().startswith(b"born ")
            assert nursery.stdout.readline().startswith(b"http://")
        nursery.stdin.close()
        nursery.wait()
        stderr.seek(0)
        modules = re.findall(r"^import time:.*\| *([\w.]+)$", stderr.read(), re.MULTILINE)
    return [each for each in modules if not each.startswith("typer.")]


# --- the campaign notices


class LosesItsTail(Campaign):
    """After a kill the end of the WAL is missing, as on a disk that ignores fsync."""

    async def _kill(self, life: Life) -> None:
        await super()._kill(life)
        wal = self._data / "log.db-wal"
        if wal.exists():
            os.truncate(wal, wal.stat().st_size * 3 // 4)


def test_a_log_that_loses_its_tail_at_a_crash_is_noticed(tmp_path: Path) -> None:
    """A client that has a response notices it, or a reader that has read further."""
    outcome = asyncio.run(LosesItsTail(tmp_path / "data", Plan(20, seed=2)).run())
    noticed = "is lost", "was sent reset"
    assert any(word in each for each in outcome.faults for word in noticed), outcome.faults


def test_a_service_that_forgets_idempotency_keys_is_noticed(tmp_path: Path) -> None:
    plan = Plan(20, seed=3, app="eventjobs.tools.soak.kills.sabotage:FORGETS_KEYS")
    outcome = asyncio.run(campaign(tmp_path / "data", plan))
    assert any("happened before" in each for each in outcome.faults), outcome.faults


# --- the checker notices

A = "00000000-0000-4000-8000-00000000000a"
B = "00000000-0000-4000-8000-00000000000b"


def submission(token: str) -> e.JobSubmitted:
    return e.JobSubmitted(JobSpec("noop", {"token": token}, max_attempts=3))


#: Two jobs: one is done, the other is cancelled, retried, and fails in its second attempt.
TRUE: list[Entry] = [
    (A, "http", submission("job 1")),
    (A, "w1", e.AttemptStarted(1, "w1")),
    (B, "http", submission("job 2")),
    (B, "w1", e.AttemptStarted(1, "w1")),
    (A, "w1", e.ProgressReported(1, 1, 2)),
    (B, "http", e.CancelRequested("cancel 1")),
    (A, "w1", e.JobCompleted(1, "done")),
    (B, "w1", e.JobCancelled(1)),
    (B, "http", e.JobRetried("retry 1")),
    (B, "w2", e.AttemptStarted(2, "w2")),
    (B, "w3", e.ArtifactStored(2, "error.json", "ab" * 32, 2, "application/json")),
    (B, "w3", e.AttemptFailed(2, "worker_lost", True, None)),
]


def lines_of(rows: list[Row]) -> list[tuple[int, str]]:
    """The lines that a reader of all events receives."""
    recorded = [
        Recorded(*row[:3], row.at_us, row.actor, e.LogWritten(1, ""), row.type, row.facts, row.body)
        for row in rows
    ]
    return [(each.position, each.json().decode()) for each in recorded]


class World:
    """A history without a fault, until a test changes it."""

    def __init__(self) -> None:
        self.rows = rows_of(TRUE)
        self.history = History()
        for token in ("job 1", "job 2", "cancel 1", "retry 1"):
            self.history.attempt(token)
        self.all = self.history.stream("reader")
        self.one = self.history.stream("job reader", ids=[A])
        self.lines = lines_of(self.rows)
        for claim in (
            Claim("client", A, 1, 1, "queued", 0, "job 1"),
            Claim("client", B, 3, 1, "queued", 0, "job 2"),
            Claim("client", B, 6, 3, "running", 1, cancelled=True),
            Claim("client", B, 9, 5, "queued", 1),
        ):
            self.history.acknowledge(claim)

    def store(self, entries: list[Entry]) -> None:
        self.rows = rows_of(entries)

    def faults(self) -> list[str]:
        for stream in (self.all, self.one):
            for position, data in self.lines:
                if stream is self.all or A in data:
                    stream.receive(position, data)
        self.one.ended = True
        checker = Checker(self.history.attempted)
        checker.check("log", self.rows, Due.of(self.history))
        return self.history.faults + checker.faults


def test_a_true_history_is_no_reason_to_complain() -> None:
    assert not World().faults()


WATCHED, WATCHED_BEFORE = Claim("watcher", A, 5, 3), Claim("watcher", A, 2, 2)


def replace(world: World, position: int, **changes: Any) -> None:
    world.rows[position - 1] = world.rows[position - 1]._replace(**changes)


TAMPERED: dict[str, tuple[Callable[[World], object], str]] = {
    "an acknowledged event is missing at the end": (
        lambda world: world.store(TRUE[:8]),
        "job {B} at position 9, which is lost",
    ),
    "an acknowledged submission became another one": (
        lambda world: world.store([(A, "http", submission("job 2")), *TRUE[1:]]),
        "'job 1' is lost, though it was acknowledged",
    ),
    "a position is missing": (lambda world: world.rows.pop(4), "position 5 is missing"),
    "a version is missing": (lambda world: replace(world, 5, version=4), "version 3 is missing"),
    "a body was changed": (lambda world: replace(world, 7, body=b'{"result":1}'), "committed to"),
    "an event happened that nobody attempted": (
        lambda world: world.history.attempted.discard("retry 1"),
        "no client sent 'retry 1'",
    ),
    "one submission became two jobs": (
        lambda world: world.store([*TRUE[:2], (B, "http", submission("job 1")), *TRUE[3:]]),
        "'job 1' happened before, to job {A}",
    ),
    "a job ended twice": (
        lambda world: world.store([*TRUE, (A, "w1", e.JobCompleted(1, "done"))]),
        "its job is completed in attempt 1",
    ),
    "a job ended by an attempt that was not its last": (
        lambda world: world.store([*TRUE[:10], (B, "w2", e.JobCompleted(1))]),
        "its job is running in attempt 2",
    ),
    "an attempt ended by another worker": (
        lambda world: world.store([*TRUE[:10], (B, "w3", e.JobCompleted(2))]),
        "w2 holds the attempt",
    ),
    "an attempt began while another one ran": (
        lambda world: world.store([*TRUE[:10], (B, "w3", e.AttemptStarted(3, "w3"))]),
        "its job is running, not queued",
    ),
    "an attempt was left out": (
        lambda world: world.store([*TRUE[:9], (B, "w2", e.AttemptStarted(3, "w2"))]),
        "it follows attempt 1",
    ),
    "an event came before its job": (
        lambda world: world.store([(B, "w1", e.AttemptStarted(1, "w1"))]),
        "its job was never submitted",
    ),
    "a cancel was acknowledged, and never happened": (
        lambda world: world.store([*TRUE[:5], (B, "w1", e.ProgressReported(1)), *TRUE[6:]]),
        "no cancel was requested",
    ),
    "a client was told a status that never was": (
        lambda world: world.history.acknowledge(Claim("client", A, 7, 4, "failed")),
        "status failed, but it was completed",
    ),
    "a client was told of one job where another one is": (
        lambda world: world.history.acknowledge(Claim("client", A, 8)),
        "the log has job {B}",
    ),
    "a reader missed an event": (
        lambda world: world.lines.pop(3),
        "reader received position 5 instead of 4",
    ),
    "a reader was given an event again": (
        lambda world: world.lines.insert(4, world.lines[3]),
        "reader received position 4 again",
    ),
    "a reader was given events out of order": (
        lambda world: world.lines.insert(3, world.lines.pop(4)),
        "reader received position 5 instead of 4",
    ),
    "a reader was given another event": (
        lambda world: world.lines.__setitem__(6, (7, world.lines[6][1].replace("done", "gone"))),
        "received another event at position 7",
    ),
    "a reader was given an event that is not there": (
        lambda world: world.store(TRUE[:10]),
        "reader received position 11, which does not exist",
    ),
    "a stream ended before its job": (
        lambda world: world.lines.pop(6),
        "job reader ended before job {A} did",
    ),
    "a reader of snapshots was taken back": (
        lambda world: [*map(world.history.snapshot, (WATCHED, WATCHED_BEFORE))],
        "watcher: job {A} went back from version 3 to 2",
    ),
}


@pytest.mark.parametrize("tampered", TAMPERED)
def test_the_checker_notices_that(tampered: str) -> None:
    tamper, complaint = TAMPERED[tampered]
    world = World()
    tamper(world)
    faults = world.faults()
    assert any(complaint.format(A=A, B=B) in each for each in faults), faults


def test_the_checker_notices_that_the_log_became_another_one() -> None:
    checker = Checker({"job 1"})
    checker.check("log", rows_of(TRUE[:1]), Due([], set(), []))
    checker.check("other", [], Due([], set(), []))
    assert checker.faults == ["the log log was replaced by another one, other"]


def test_the_checker_counts_what_was_done_without_an_answer() -> None:
    checker = Checker({"job 1", "job 2"})
    checker.check("log", rows_of(TRUE[:1]), Due([], {"job 1", "job 2"}, []))
    assert checker.recovered == 1


def test_what_is_left_over_when_all_should_be_done_is_noticed(tmp_path: Path) -> None:
    checker = Checker({"job 1", "job 2"})
    checker.check("log", rows_of(TRUE[:4]), Due([], set(), []))
    checker.artifacts.add("ab" * 32)
    checker.finish([Stream("reader")], {A: 2, B: 1}, tmp_path)
    assert checker.faults == [
        f"job {A} is still running in attempt 1",
        f"job {B} is still running in attempt 1",
        f"the last snapshot of job {B} was 1, not 2",
        "reader never received position 1",
        f"artifact {'ab' * 32} is missing or changed",
    ]


# --- faults that the campaign has found


async def test_who_was_late_is_told_when_the_winner_can_be_read(tmp_path: Path) -> None:
    """A cancel was answered 503 conflict: its conflict came before the winning event could be
    read, so it was late again, ten times.
    """
    log = await SQLiteLog.open(tmp_path / "log.db")
    try:
        await log.append(A, 0, submission("job 1"), actor="http")
        won = asyncio.create_task(log.append(A, 1, e.AttemptStarted(1, "w1"), actor="w1"))
        late = asyncio.create_task(log.append(A, 1, e.JobCancelled(), actor="http"))
        with pytest.raises(Conflict):
            await late
        assert [each.version for each in await log.read_job(A)] == [1, 2]
        await won
    finally:
        await log.close()


async def test_run_times_are_learned_in_the_order_of_the_log(tmp_path: Path) -> None:
    """A rebuild gave other times than the live views: within a batch they were learned in the
    order in which the batch first met the jobs, and batches are cut anywhere.
    """
    first, second = (job.replace("0", "1", 1) for job in (A, B))
    entries: list[Entry] = [
        (first, "http", submission("job 1")),
        (second, "http", submission("job 2")),
        (first, "w1", e.AttemptStarted(1, "w1")),
        (second, "w1", e.AttemptStarted(1, "w1")),
        (second, "w1", e.JobCompleted(1)),
        (first, "w1", e.JobCompleted(1)),
    ]
    log = [
        Recorded(*row[:3], row.at_us, row.actor, event, row.type, row.facts, row.body)
        for row, (_, _, event) in zip(rows_of(entries), entries, strict=True)
    ]
    learned = []
    for size in (1, len(log)):
        store = await Store.open(tmp_path / f"views {size}.db", "log", len(log))
        for at in range(0, len(log), size):
            await store.apply(log[at : at + size])
        learned.append(await store.read(TIMES))
        await store.close()
    assert learned[0] == learned[1] == [[1, 1_000_000], [2, 3_000_000]]


TIMES = """
SELECT json_group_array(json_array(number, duration_us))
FROM (SELECT * FROM stage_times ORDER BY number)
"""
