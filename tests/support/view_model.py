"""A model of the views in plain Python, and the cost of their queries."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
from hypothesis import strategies as st

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.job import Job, Status, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog

some_types = st.lists(st.sampled_from(["csv", "render", "mail", "other"]), min_size=1, max_size=2)


def jobs_of(history: list[Recorded]) -> list[Job]:
    """The jobs there are, oldest first."""
    jobs: dict[str, Job] = {}
    for each in history:
        jobs[each.job_id] = evolve(jobs.get(each.job_id), each)
    return sorted(jobs.values(), key=lambda job: job.born)


async def submit(log: MemoryLog, number: int, **fields: Any) -> str:
    spec = JobSpec(**{"type": "csv", "max_attempts": 3, **fields})
    await log.append(job_id(number), 0, JobSubmitted(spec), actor="ann")
    return job_id(number)


def unmet(job: Job, jobs: list[Job]) -> list[tuple[str, str | None]]:
    """The jobs that *job* waits for, and how they are."""
    there = {each.job_id: each for each in jobs}
    waiting = []
    for other_id in job.spec.after if job.status == Status.QUEUED else ():
        other = there.get(other_id)
        any_end = job.spec.after_failure == "run" and other is not None and other.finished
        if not any_end and (other is None or other.status != Status.COMPLETED):
            waiting.append((other_id, None if other is None else str(other.status)))
    return sorted(waiting)


def count_steps(path: Path, sql: str, bound: dict[str, Any] | tuple[Any, ...]) -> tuple[Any, int]:
    """What *sql* answers, and how many steps of SQLite's machine that took."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(step, 1)
        [[result]] = connection.execute(sql, bound).fetchall()
    return orjson.loads(result), steps
