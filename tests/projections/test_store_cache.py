"""Jobs in memory are as new as the file."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from eventjobs.domain.events import AttemptStarted, JobSubmitted
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.attempt_progress import Progress
from eventjobs.projections.store import Store
from tests.support.histories import START_US, job_id, record
from tests.support.view_rows import HEAD, LOG_ID, apply


async def test_a_read_that_is_overtaken_brings_no_old_job_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's next event would not follow the old job."""
    submitted = record(JobSubmitted(JobSpec("a")), job_id(0), None, 1, START_US)
    started = record(AttemptStarted(1, "w"), job_id(0), evolve(None, submitted), 2, START_US)
    await apply(tmp_path / "views.db", [[submitted]])
    store = await Store.open(tmp_path / "views.db", LOG_ID, HEAD)
    progress_of, is_read, may_go_on = store.progress_of, asyncio.Event(), asyncio.Event()

    async def read_late(jobs: Iterable[Job]) -> dict[str, Progress]:
        if not is_read.is_set():
            is_read.set()
            await may_go_on.wait()
        return await progress_of(jobs)

    monkeypatch.setattr(store, "progress_of", read_late)
    reading = asyncio.create_task(store.get(job_id(0)))
    await is_read.wait()
    await store.apply([started])
    may_go_on.set()
    await reading
    cached = store.get_cached(job_id(0))
    await store.close()
    assert cached is not None
    assert cached[0].status == "running"
