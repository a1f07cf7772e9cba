"""A service that starts recovers every interrupted attempt that its log has."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eventjobs import Context, handler
from eventjobs.domain.recorded import Recorded
from eventjobs.projections import Views
from eventjobs.projections.fold import Folded
from eventjobs.projections.store import Store
from tests.conftest import Serve
from tests.support.histories import job_id
from tests.support.log_lines import capture_logs
from tests.support.waiting import kinds


@handler("ok")
async def ok(context: Context, payload: Any) -> None:
    pass


async def start_and_stop(serve: Serve, data: Path) -> str:
    """A job that runs, as a log has it whose service was killed. Its views are gone."""
    service = await serve(ok, data=data, concurrency=0)
    job = await service.submit("ok")
    await service.jobs.start(job.job_id, worker="killed")
    await service.close()
    await asyncio.to_thread(Store.remove, data / "views.db")
    return job.job_id


async def test_recovery_waits_for_views_that_are_behind_the_log(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fold nothing here before recovery waits for them, or has asked them what runs."""
    interrupted = await start_and_stop(serve, tmp_path / "data")
    asked = asyncio.Event()
    fold, wait, running = Store.fold, Views.wait_for_position, Views.running

    async def fold_late(
        store: Store, batch: Sequence[Recorded], *, parking: bool = False
    ) -> Folded:
        await asked.wait()
        return await fold(store, batch, parking=parking)

    async def wait_for_position(views: Views, position: int) -> None:
        asked.set()
        await wait(views, position)

    async def read_running(views: Views) -> list[str]:
        try:
            return await running(views)
        finally:
            asked.set()

    monkeypatch.setattr(Store, "fold", fold_late)
    monkeypatch.setattr(Views, "wait_for_position", wait_for_position)
    monkeypatch.setattr(Views, "running", read_running)
    with capture_logs() as lines:
        service = await serve(ok, data=tmp_path / "data", concurrency=0)
    assert service.recovered
    assert await kinds(service, interrupted) == "JobSubmitted AttemptStarted AttemptFailed"
    assert [each["jobs"] for each in lines if each["event"] == "attempts lost"] == [1]
    await service.close()
    with capture_logs() as lines:
        await serve(ok, data=tmp_path / "data", concurrency=0)
    assert "attempts lost" not in [each["event"] for each in lines]


async def test_a_job_that_does_not_run_when_its_turn_comes_is_left_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt may end, and a job may be erased, after it was listed as running."""
    service = await serve(ok)
    ended = await service.wait((await service.submit("ok")).job_id)
    await service.close()

    async def list_both(views: Views) -> list[str]:
        return [ended.job_id, job_id(9)]

    monkeypatch.setattr(Views, "running", list_both)
    with capture_logs() as lines:
        service = await serve(ok)
    assert {"not recovered", "attempts lost"}.isdisjoint(each["event"] for each in lines)
    assert await kinds(service, ended.job_id) == "JobSubmitted AttemptStarted JobCompleted"
