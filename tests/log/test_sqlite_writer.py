"""Disks fail and processes die; what was answered is true all the same."""

import asyncio
import hashlib
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.spec import JobSpec
from eventjobs.log.sqlite import SQLiteLog
from tests.conftest import ROOT
from tests.support.histories import job_id
from tests.support.strace import attach, failing
from tests.support.workload import GROUP

SEED = 20250101


class Answer(NamedTuple):
    outcome: str
    job: str
    group: str


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty log: opening it writes nothing, so that the first call that fails is an append's."""
    path = tmp_path / "log.db"
    make(path)
    return path


@pytest.fixture
def path_of_used_log(path: Path) -> Path:
    """A log with one event: both of its connections have the file open, as in a service."""
    make(path, events=1)
    return path


def make(path: Path, events: int = 0) -> None:
    async def open_and_close() -> None:
        log = await SQLiteLog.open(path)
        for version in range(events):
            await log.append(job_id(1), version, JobSubmitted(JobSpec("test")), actor="tester")
        await log.close()

    asyncio.run(open_and_close())


def workload(mode: str, path: Path, count: int = 0) -> list[str]:
    return [sys.executable, "-m", "tests.support.workload", mode, str(path), str(count)]


def answers(text: str) -> list[Answer]:
    """What was answered: a line that was cut off by the end of the process was not read."""
    lines = [line.split(" ") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [Answer(*line) for line in lines if line[0] in {"ok", "no", "disk_full", "unknown"}]


def stored_texts(path: Path) -> set[str]:
    """The jobs that are there when the log is opened again, which must be whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute(
            "SELECT position, job_id, body, salt, commitment FROM events ORDER BY position"
        ).fetchall()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    for _, _, body, salt, commitment in rows:
        expected = hashlib.sha256(b"eventjobs/body/v1\0" + salt + body).digest()
        assert commitment == expected
    return {row[1] for row in rows}


def judge(path: Path, answers_seen: list[Answer]) -> None:
    """Every "ok" is there, and every refusal is not; "unknown" may be either."""
    there = stored_texts(path)
    assert {each.job for each in answers_seen if each.outcome == "ok"} <= there
    assert not {each.job for each in answers_seen if each.outcome in {"no", "disk_full"}} & there


# --- a disk that fails


def points(call: str, highest: int, count: int) -> list[str]:
    """Some calls to fail at. Each connection's thread counts its own, and the first few are needed
    to come back after a failure."""
    drawn = random.Random(f"{SEED} {call}").sample(range(3, highest), count)
    return [f"{call}:error=EIO:when={number}" for number in sorted(drawn)]


FAULTS = [
    *points("fdatasync", 12, 4),
    *points("pwrite64", 40, 4),
    "pwrite64:error=ENOSPC:when=15",
    "fdatasync:error=EIO:when=3+2",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_failing_disk_made_us_answer_is_true(
    strace: str, path_of_used_log: Path, fault: str
) -> None:
    """And the log writes again by itself."""
    path = path_of_used_log
    command = [*failing(strace, path, fault), *workload("groups", path, 10)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    answers_seen = answers(run.stdout)
    assert len(answers_seen) > 10 * GROUP
    assert "INJECTED" in path.with_name("strace").read_text(), "nothing failed"
    judge(path, answers_seen)


#: Every call that syncs a batch after the first, and every call that writes the second one: after
#: the last of these it is in the WAL as a whole.
COMMITS = [f"fdatasync:error=EIO:when={number}" for number in range(3, 12)]
FRAMES = [f"pwrite64:error=EIO:when={number}" for number in range(26, 44)]


@pytest.mark.parametrize("fault", [*COMMITS, *FRAMES])
def test_what_was_not_written_does_not_come_back_when_the_process_dies(
    strace: str, path_of_used_log: Path, fault: str
) -> None:
    """Its frames may be in the WAL, whole; only the commit after it makes them void."""
    path = path_of_used_log
    command = [*failing(strace, path, fault), *workload("die", path, 10)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    answers_seen = answers(run.stdout)
    assert {each.outcome for each in answers_seen} == {"ok", "no"}
    assert "closed" not in run.stdout
    judge(path, answers_seen)


def test_a_log_that_cannot_be_reopened_says_so_and_closes(strace: str, path: Path) -> None:
    command = [*failing(strace, path, "fdatasync:error=EIO"), *workload("close", path, 2)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    answers_seen = answers(run.stdout)
    assert Counter(each.outcome for each in answers_seen) == {"unknown": GROUP}
    assert "closed" in run.stdout
    judge(path, answers_seen)


@contextmanager
def running(mode: str, path: Path) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    command = workload(mode, path)
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("open"):
            pass
        try:
            yield process
        finally:
            process.kill()


def ask(process: "subprocess.Popen[str]", until: str = "") -> list[Answer]:
    """The answers to one more group, and to what runs until its log says *until*."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    answers_seen: list[Answer] = []
    reached = not until
    while len(answers_seen) < GROUP or not reached:
        line = process.stdout.readline()
        assert line, "it has ended"
        reached = reached or until in line
        answers_seen += answers(line)
    return answers_seen


def test_a_disk_that_fails_for_a_while_stops_writes_for_that_while(strace: str, path: Path) -> None:
    """Nothing can be read or written: the log stays closed to writers until it can.

    A page that could not be read while coming back used to be taken for a stranger's file, which
    ended the writer for good.
    """
    faults = ("fdatasync:error=EIO", "pwrite64:error=EIO", "pread64:error=EIO:when=2+")
    with running("lines", path) as process:
        answers_seen = ask(process)
        assert {each.outcome for each in answers_seen} == {"ok"}
        with attach(failing(strace, path, *faults), process.pid):
            during = [each for _ in range(3) for each in ask(process)]
        assert {each.outcome for each in during[:GROUP]} == {"unknown"}
        assert {each.outcome for each in during[GROUP:]} == {"no"}
        answers_seen += [*during, *until_it_writes(process)]
        finish(process)
    judge(path, answers_seen)


def until_it_writes(process: "subprocess.Popen[str]") -> list[Answer]:
    answers_seen: list[Answer] = []
    while not answers_seen or answers_seen[-1].outcome != "ok":
        answers_seen += ask(process)
    return answers_seen


def finish(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_service_whose_disk_fails_for_a_while_loses_no_job_and_ends_each_once(
    strace: str, tmp_path: Path
) -> None:
    """What was written then cannot be synced, and is there all the same when the disk is back:
    a claim of that kind used to leave its job running for ever."""
    path = tmp_path / "data" / "log.db"
    with running("jobs", path) as process:
        answers_seen = [each for _ in range(20) for each in ask(process)]
        faults = ("fdatasync:error=EIO", "pread64:error=EIO:when=2+")
        with attach(failing(strace, path, *faults), process.pid):
            answers_seen += ask(process, until="cannot reopen")
        answers_seen += until_it_writes(process)
        finish(process)
    judge(path, answers_seen)
    with closing(sqlite3.connect(path)) as connection:
        ends = connection.execute(
            "SELECT job_id, sum(type = 'JobCompleted') FROM events GROUP BY job_id"
        ).fetchall()
    assert [job for job, times in ends if times != 1] == []


# --- a process that dies


@pytest.mark.parametrize("number", range(6))
def test_a_killed_process_loses_nothing_acknowledged_and_halves_no_batch(
    path: Path, number: int
) -> None:
    lines = random.Random(f"{SEED} {number}").randrange(1, 400)
    answers_seen: list[Answer] = []
    with subprocess.Popen(
        workload("groups", path, 10**6), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while len(answers_seen) < lines:
            answers_seen += answers(process.stdout.readline())
        process.kill()
        answers_seen += answers(process.stdout.read())
    judge(path, answers_seen)
    groups = Counter(int(job[-12:]) // GROUP for job in stored_texts(path))
    assert set(groups.values()) == {GROUP}, "half a batch"


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_process_killed_while_it_made_its_log_can_be_started_again(
    strace: str, path: Path, call: str
) -> None:
    for number in range(1, 8, 3):
        path.unlink()
        command = failing(strace, path, f"{call}:signal=SIGKILL:when={number}")
        run = subprocess.run(
            [*command, *workload("groups", path, 0)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "closed" not in run.stdout
        make(path)
        judge(path, answers(run.stdout))


def test_a_disk_that_cannot_be_read_is_not_taken_for_a_strangers_file(
    strace: str, path: Path
) -> None:
    command = [*failing(strace, path, "pread64:error=EIO:when=2+"), *workload("groups", path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "sqlite3.DatabaseError" in run.stderr
    assert "NotOurs" not in run.stderr
