"""One bad item, or one bad loop, does not take the others along."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eventjobs.service
from eventjobs.attempts.leases import LeaseMonitor
from eventjobs.commands.api_keys import APIKeys
from eventjobs.commands.jobs import Jobs
from eventjobs.errors import DiskFull, LogUnavailable
from eventjobs.execution.runner import Runner
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.maintenance.cascade import CascadeCanceller
from eventjobs.maintenance.completion_hooks import CompletionHooks
from eventjobs.maintenance.cron import CronScheduler
from eventjobs.maintenance.expiry import JobExpirer
from eventjobs.outbound.jwks import JWKS
from eventjobs.outbound.webhooks.deliveries import WebhookDeliveries
from eventjobs.projections import Views
from eventjobs.service import Service
from eventjobs.supervision import AGAIN_S, RECOVERED_S, Isolation, Supervisor
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.limited_jobs import paced
from tests.support.log_lines import capture_logs
from tests.support.schedules import minutely, tick
from tests.support.waiting import job_when, time_passing, turns


class Odd(BaseException):
    """No Exception, and it cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no")


@handler("ok")
async def ok(context: Context, payload: Any) -> None: ...


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[Any]]:
    """What is logged. Captured in each test: to print a traceback, its source files are read."""
    with capture_logs() as lines:
        yield lines


def breaking(monkeypatch: pytest.MonkeyPatch, method: str, bad: set[str], error: Any) -> list[str]:
    """Have a method of Jobs raise *error* for the jobs in *bad*; the calls that raised."""
    real = getattr(Jobs, method)
    calls = []

    async def broken(self: Jobs, job_id: str, *arguments: Any, **more: Any) -> Any:
        if job_id in bad:
            calls.append(job_id)
            raise error
        return await real(self, job_id, *arguments, **more)

    monkeypatch.setattr(Jobs, method, broken)
    return calls


# --- items


@pytest.mark.parametrize("error", [RuntimeError("x"), Odd(), SystemExit(3), DiskFull()])
async def test_an_item_that_fails_waits_alone_and_longer_each_time(
    error: Any, lines: list[Any]
) -> None:
    clock = FakeClock()
    isolation = Isolation(clock, "test", "work")

    async def fail() -> None:
        raise error

    assert not await isolation.attempt("a", fail(), job_id="a")
    [line] = lines
    assert line["log_level"] == ("warning" if isinstance(error, DiskFull) else "error")
    assert line["job_id"] == "a"
    assert (isolation.may_run("a"), isolation.may_run("b")) == (False, True)
    await clock.advance(AGAIN_S)
    assert isolation.may_run("a")
    assert not await isolation.attempt("a", fail())
    await clock.advance(AGAIN_S)
    assert not isolation.may_run("a")
    await clock.advance(AGAIN_S)
    assert isolation.may_run("a")
    assert await isolation.attempt("a", asyncio.sleep(0))
    assert len(isolation) == 0


async def test_a_cancel_of_the_loop_is_no_failure_of_its_item() -> None:
    isolation = Isolation(FakeClock(), "test", "work")
    task = asyncio.create_task(isolation.attempt("a", asyncio.Event().wait()))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(isolation) == 0


# --- loops


@pytest.mark.parametrize("error", [KeyError("x"), Odd(), SystemExit(1), asyncio.CancelledError()])
async def test_a_loop_that_fails_is_restarted_and_named_until_it_is_mended(error: Any) -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock)
    began = []

    async def loop() -> None:
        began.append(clock.monotonic_s())
        if len(began) < 3:
            raise error
        await asyncio.Event().wait()

    task = asyncio.create_task(supervisor.keep_running("it", loop))
    await turns()
    assert list(supervisor.failing) == ["it"]
    await clock.advance(AGAIN_S)
    await clock.advance(2 * AGAIN_S)
    assert began == [0, AGAIN_S, 3 * AGAIN_S]
    assert list(supervisor.failing) == ["it"]
    await clock.advance(RECOVERED_S)
    assert supervisor.failing == {}
    task.cancel()


async def test_a_loop_that_waits_for_the_log_is_restarted_and_is_not_broken(
    lines: list[Any],
) -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock)
    began = []

    async def loop() -> None:
        began.append(1)
        if len(began) == 1:
            raise LogUnavailable

    task = asyncio.create_task(supervisor.keep_running("it", loop))
    await turns()
    assert supervisor.failing == {}
    assert [(each["log_level"], each["error"]) for each in lines] == [
        ("warning", "log_unavailable")
    ]
    await clock.advance(AGAIN_S)
    assert began == [1, 1]
    task.cancel()


async def test_readyz_names_a_part_that_fails_and_the_others_work(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    expiring = Views.expiring

    async def fail(self: Views, *arguments: Any) -> list[str]:
        if broken:
            raise RuntimeError("a bug")
        return await expiring(self, *arguments)

    monkeypatch.setattr(Views, "expiring", fail)
    api = await client(ok, clock=clock)
    await turns()
    reply = await api.get("/readyz")
    assert (reply.status, reply.code) == (503, "not_ready")
    assert "expiry" in reply.json["detail"]
    assert (await api.service.wait((await api.submit("ok"))["job_id"])).status == "completed"
    broken = False
    await clock.advance(2 * RECOVERED_S)
    assert (await api.get("/readyz")).status == 200


# --- the service's own loops

LOOPS: list[tuple[Any, str]] = [
    (APIKeys, "run"),
    (CascadeCanceller, "run"),
    (CompletionHooks, "run"),
    (CronScheduler, "run"),
    (JobExpirer, "run"),
    (JWKS, "run"),
    (LeaseMonitor, "run"),
    (Runner, "run"),
    (WebhookDeliveries, "follow"),
    (eventjobs.service, "load_recent_starts"),
    (eventjobs.service, "recover"),
]


async def test_every_loop_outlives_a_log_that_fails(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = Counter[str]()

    def failing_once(loop: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*arguments: Any, **more: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            began[task.get_name()] += 1
            if began[task.get_name()] == 1:
                raise LogUnavailable
            await loop(*arguments, **more)

        return run

    for owner, name in LOOPS:
        monkeypatch.setattr(owner, name, failing_once(getattr(owner, name)))
    tokens = {"jwks_url": "http://127.0.0.1:9/", "jwt_issuer": "i", "jwt_audience": "a"}
    service = await serve(ok, paced, tick, minutely, clock=clock, auth="optional", **tokens)
    assert began == {"recovery": 1}
    await clock.advance(AGAIN_S)  # then the others begin
    await clock.advance(AGAIN_S)
    names = {task.get_name() for task in service.supervisor.tasks} - {"views"}
    assert began == dict.fromkeys(names, 2)
    assert service.ready
    for type in ("ok", "paced"):
        assert (await service.wait((await service.submit(type)).job_id)).status == "completed"


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(3), LogUnavailable()])
async def test_jobs_that_cannot_be_cancelled_keep_no_others_waiting(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setattr("eventjobs.maintenance.cascade.PAGE", 2)
    service = await serve(ok, clock=clock, concurrency=0)
    root = await service.submit("ok")
    ids = [(await service.submit("ok", after=[root.job_id])).job_id for _ in range(5)]
    bad = set(ids[:3])  # more than a page, and the first of all
    breaking(monkeypatch, "cancel", bad, error)
    await service.jobs.cancel(root.job_id, actor="test")
    async with asyncio.timeout(20):
        for job_id in ids[3:]:
            waiting = job_when(service, job_id, lambda job: job.finished)
            assert (await time_passing(clock, waiting)).status == "cancelled"
        bad.clear()
        for job_id in ids[:3]:
            waiting = job_when(service, job_id, lambda job: job.finished)
            assert (await time_passing(clock, waiting)).status == "cancelled"
    assert service.ready


@pytest.mark.parametrize("error", [RuntimeError("x"), LogUnavailable()])
async def test_jobs_that_cannot_be_hidden_keep_no_others_from_it(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setattr("eventjobs.maintenance.expiry.PAGE", 2)
    service = await serve(ok, clock=clock)
    bad = set[str]()
    breaking(monkeypatch, "expire", bad, error)
    ids = [(await service.submit("ok", ttl_s=60)).job_id for _ in range(5)]
    bad.update(ids[:3])
    for job_id in ids:
        await time_passing(clock, service.wait(job_id))
    async with asyncio.timeout(20):
        for job_id in ids[3:]:
            waiting = job_when(service, job_id, lambda job: job.expired_us is not None)
            await time_passing(clock, waiting)
    assert service.ready


async def test_a_job_that_cannot_be_recovered_keeps_no_service_from_starting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(ok, concurrency=0)
    ids = [(await service.submit("ok")).job_id for _ in range(2)]
    for job_id in ids:
        await service.jobs.start(job_id, worker="killed")
    await service.close()
    with monkeypatch.context() as patch:
        breaking(patch, "fail", {ids[0]}, RuntimeError("x"))
        again = Service(handlers=[ok], settings=service.settings)
        await again.start()
    lost = await job_when(again, ids[1], lambda job: job.error is not None)
    assert lost.error is not None
    assert lost.error["code"] == "worker_lost"
    await again.close()
