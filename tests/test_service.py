"""A service opens, runs jobs, stops and starts again, and leaves nothing open nor undone."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import AttemptReleased
from eventjobs.domain.job import Job
from eventjobs.errors import (
    DirectoryLocked,
    InvalidInput,
    JobExists,
    JobNotFound,
    LogUnavailable,
    UnknownType,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Serve
from tests.support.waiting import job_when, kinds, recorded_of, turns


@handler("quick", max_attempts=7, timeout_s=5, stall_timeout_s=4, retry_delay_s=0.5)
async def quick(context: Context, payload: Any) -> Any:
    return payload


@handler("endless")
async def endless(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


@handler("endless")
async def ends(context: Context, payload: Any) -> str:
    return "at last"


async def running(service: Service, job_id: str) -> Job:
    return await job_when(service, job_id, lambda job: job.status == "running")


# --- submitting


async def test_what_a_submission_leaves_open_is_the_handlers_and_recorded(serve: Serve) -> None:
    service = await serve(quick, endless, max_attempts=2, concurrency=0)
    spec = (await service.submit("quick")).spec
    assert (spec.max_attempts, spec.timeout_s) == (7, 5)
    assert (spec.stall_timeout_s, spec.retry_delay_s) == (4, 0.5)
    spec = (await service.submit("quick", max_attempts=1, timeout_s=9, retry_delay_s=0)).spec
    assert (spec.max_attempts, spec.timeout_s, spec.retry_delay_s) == (1, 9, 0)
    spec = (await service.submit("endless")).spec
    assert (spec.max_attempts, spec.timeout_s, spec.stall_timeout_s) == (2, None, None)


async def test_an_unknown_type_is_refused(serve: Serve) -> None:
    service = await serve(quick)
    with pytest.raises(UnknownType, match="there are: quick"):
        await service.submit("slow")
    assert service.log.head == 0


@pytest.mark.parametrize("payload", [float("nan"), {1: 2}, object(), "\ud800", 2**70])
async def test_a_payload_that_json_cannot_hold_is_refused(serve: Serve, payload: Any) -> None:
    service = await serve(quick)
    with pytest.raises(InvalidInput) as refusal:
        await service.submit("quick", payload)
    assert [each["field"] for each in refusal.value.errors] == ["payload"]


async def test_the_same_submission_again_is_the_same_job(serve: Serve) -> None:
    service = await serve(quick)
    job_id = "00000000-0000-4000-8000-000000000001"
    for _ in range(2):
        await service.submit("quick", {"a": 1}, job_id=job_id)
    with pytest.raises(JobExists):
        await service.submit("quick", {"a": 2}, job_id=job_id)
    assert (await service.wait(job_id)).attempt == 1


async def test_a_job_that_is_not_there_is_not_waited_for(serve: Serve) -> None:
    service = await serve(quick)
    with pytest.raises(JobNotFound):
        await service.wait("00000000-0000-4000-8000-000000000001")


# --- stopping


async def test_what_ends_in_time_is_drained(serve: Serve) -> None:
    go = asyncio.Event()

    @handler("waits")
    async def waits(context: Context, payload: Any) -> None:
        await go.wait()

    service = await serve(waits, concurrency=1)
    first, second = [await service.submit("waits") for _ in range(2)]
    await running(service, first.job_id)
    closing = asyncio.create_task(service.close())
    await turns()
    assert not closing.done()
    go.set()
    await closing
    again = await serve(waits, concurrency=0)
    assert await kinds(again, first.job_id) == "JobSubmitted AttemptStarted JobCompleted"
    assert await kinds(again, second.job_id) == "JobSubmitted", "nothing more is claimed"


async def test_what_does_not_end_is_given_back_and_does_not_count(serve: Serve) -> None:
    service = await serve(endless, drain_s=0)
    job = await service.submit("endless", max_attempts=1)
    await running(service, job.job_id)
    await service.close()
    again = await serve(ends)
    job = await again.wait(job.job_id)
    assert (job.result, job.attempt, job.tries) == ("at last", 2, 1)
    expected = "JobSubmitted AttemptStarted AttemptReleased AttemptStarted JobCompleted"
    assert await kinds(again, job.job_id) == expected


async def test_closing_does_not_wait_for_a_handler_that_never_stops(serve: Serve) -> None:
    over = threading.Event()
    left = threading.Event()
    lost: list[BaseException] = []

    @handler("deaf")
    async def deaf(context: Context, payload: Any) -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue

    @handler("deaf thread")
    def deaf_thread(context: ThreadContext, payload: Any) -> None:
        over.wait()
        try:
            context.progress(1)
            context.artifact("a", b"1")
        except BaseException as error:
            lost.append(error)
            raise
        finally:
            left.set()

    service = await serve(deaf, deaf_thread, drain_s=0, grace_s=0)
    jobs = [await service.submit(each) for each in ("deaf", "deaf thread")]
    for job in jobs:
        await running(service, job.job_id)
    await service.close()
    over.set()
    await asyncio.to_thread(left.wait)
    assert len(lost) == 1, "what it tells after that is refused"
    again = await serve(concurrency=0)
    for job in jobs:
        [released] = await recorded_of(again, job.job_id, AttemptReleased)
        assert released.event == AttemptReleased(1, "the service was stopped")
        assert await kinds(again, job.job_id) == "JobSubmitted AttemptStarted AttemptReleased"


async def test_what_is_found_while_the_service_is_being_closed_ends_in_order(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to begin after everything else had ended, and to be left running."""
    looking, go = asyncio.Event(), asyncio.Event()
    service = await serve(endless, drain_s=0)
    pick = service.claims.select

    async def slow_pick(*given: Any) -> Any:
        picked = await pick(*given)
        if picked:
            looking.set()
            await go.wait()
        return picked

    monkeypatch.setattr(service.claims, "select", slow_pick)
    job = await service.submit("endless")
    await looking.wait()
    closing = asyncio.create_task(service.close())
    await turns()
    go.set()
    await closing
    again = await serve(concurrency=0)
    assert await kinds(again, job.job_id) == "JobSubmitted AttemptStarted AttemptReleased"


async def test_closing_goes_on_though_who_asked_is_cancelled(serve: Serve, tmp_path: Path) -> None:
    service = await serve(endless, drain_s=0)
    job = await service.submit("endless")
    await running(service, job.job_id)
    closing = asyncio.create_task(service.close())
    await turns(1)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    await service.close()
    again = await serve(concurrency=0)
    assert await kinds(again, job.job_id) == "JobSubmitted AttemptStarted AttemptReleased"


async def test_a_directory_has_one_service(serve: Serve, tmp_path: Path) -> None:
    service = await serve(quick)
    with pytest.raises(DirectoryLocked, match=str(os.getpid())):
        await Service(tmp_path / "data", [quick]).start()
    job = await service.submit("quick", 1)
    assert (await service.wait(job.job_id)).result == 1
    await service.close()
    async with Service(tmp_path / "data", [quick]) as another:
        assert another.ready
    assert not another.ready


async def test_a_service_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    await Service(tmp_path / "data", [quick]).close()


async def test_an_interrupted_upload_is_cleared_at_the_start(serve: Serve, tmp_path: Path) -> None:
    incoming = tmp_path / "data" / "artifacts" / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "half").write_bytes(b"ha")
    await serve(quick)
    assert list(incoming.iterdir()) == []


def test_starting_and_stopping_leaks_nothing(tmp_path: Path) -> None:
    def once() -> None:
        asyncio.run(start_and_stop(tmp_path / "data"))

    once()
    threads = set(threading.enumerate())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(30):
        once()
    for each in set(threading.enumerate()) - threads:
        each.join(5)
    assert set(threading.enumerate()) <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


async def start_and_stop(data: Path) -> None:
    async with Service(data, [quick], settings=Settings(drain_s=0)) as service:
        await service.submit("quick")
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- watching a job, as the live page of another framework does


@handler("counts")
async def counts(context: Context, payload: int) -> int:
    for done in range(payload):
        context.progress(done, payload)
        await asyncio.sleep(0)
    return payload


async def test_a_job_is_watched_up_to_its_end_and_no_further(serve: Serve) -> None:
    service = await serve(counts, progress_interval_s=0)
    for number in range(20):  # each ends between another two steps of the one who watches
        job = await service.submit("counts", number)
        views = [view async for view in service.views.watch(job.job_id)]
        assert [view.job.finished for view in views] == [False] * (len(views) - 1) + [True]
        positions = [view.job.position for view in views]
        assert positions == sorted(set(positions))
        assert (views[-1].job.result, views[-1].progress is None) == (number, number == 0)
        again = [view async for view in service.views.watch(job.job_id)]
        assert [view.job for view in again] == [views[-1].job]


async def test_what_is_not_there_or_hidden_meanwhile_is_not_watched_on(serve: Serve) -> None:
    service = await serve(endless)
    with pytest.raises(JobNotFound):
        await anext(service.views.watch("00000000-0000-4000-8000-000000000000"))
    job = await service.submit("endless", ttl_s=0)
    watching = service.views.watch(job.job_id)
    assert (await anext(watching)).job.status in {"queued", "running"}
    await running(service, job.job_id)
    await service.jobs.cancel(job.job_id, actor="test")
    statuses = [view.job.status async for view in watching]  # it ends, whether hidden or seen
    assert set(statuses) <= {"running", "cancelled"}


async def test_who_watches_a_service_that_closes_is_told(serve: Serve) -> None:
    service = await serve(endless, drain_s=0, grace_s=0)
    job = await service.submit("endless")
    await running(service, job.job_id)

    async def watch() -> None:
        async for _ in service.views.watch(job.job_id):
            pass

    watching = asyncio.create_task(watch())
    await turns()
    await service.close()
    with pytest.raises(LogUnavailable):
        await watching
