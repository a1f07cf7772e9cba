"""Circuit breakers of handlers: after failures calls are rejected; the job's log has a line."""

import asyncio
import threading
from typing import Any

import pytest

from eventjobs.clock import sleep
from eventjobs.domain.events import BreakerChanged, LogWritten
from eventjobs.errors import JobError
from eventjobs.handlers.breaker_state import (
    BreakerConfig,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.process_handlers import careful
from tests.support.waiting import events_of, job_when, recorded_of, time_passing

LIMITS: dict[str, Any] = {"threshold": 3, "window_s": 300, "cooldown_s": 600}


class Upstream:
    """Something outside, and how it is: "up", "down", "hangs", or "refuses" what it is sent."""

    def __init__(self) -> None:
        self.calls = 0
        self.state = "down"
        self.called = asyncio.Event()
        self.goes_on = asyncio.Event()

    def answer(self, text: str) -> str:
        self.calls += 1
        if self.state == "down":
            raise ConnectionError("it is down")
        if self.state == "refuses":
            raise JobError("bad_request", "not like that", retryable=False)
        return text.upper()

    async def ask(self, text: str) -> str:
        if self.state == "hangs":
            self.called.set()
            await self.goes_on.wait()
        return self.answer(text)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


def handlers(upstream: Upstream) -> list[Any]:
    """Shouts with a fallback, on the loop and in a thread; and without one."""

    @handler("shout")
    async def shout(ctx: Context, payload: str) -> Any:
        llm = ctx.breaker("llm", **LIMITS)
        return await llm.call(upstream.ask, payload, fallback=lambda text: f"{text}!")

    @handler("shout-in-thread")
    def shout_in_thread(ctx: ThreadContext, payload: str) -> Any:
        llm = ctx.breaker("llm", **LIMITS)
        return llm.call(upstream.answer, payload, fallback=lambda text: f"{text}!")

    @handler("no-fallback", max_attempts=2)
    async def no_fallback(ctx: Context, payload: str) -> Any:
        async with ctx.breaker("llm", **LIMITS):
            return await upstream.ask(payload)

    @handler("no-fallback-in-thread", max_attempts=1)
    def no_fallback_in_thread(ctx: ThreadContext, payload: str) -> Any:
        with ctx.breaker("llm", **LIMITS):
            return upstream.answer(payload)

    return [shout, shout_in_thread, no_fallback, no_fallback_in_thread]


async def end_of_job(api: Client, type: str = "shout", payload: Any = "hey", **fields: Any) -> Any:
    """Submit a job and wait; the body of its resource."""
    job_id = (await api.submit(type, payload=payload, **fields))["job_id"]
    await api.service.wait(job_id)
    return (await api.get(f"/v1/jobs/{job_id}")).json


async def state(api: Client) -> Any:
    [breaker] = (await api.get("/v1/breakers")).json["breakers"]
    return breaker


async def texts(service: Service, job_id: str) -> list[str | None]:
    return [
        each.message for each in await events_of(service, job_id) if isinstance(each, LogWritten)
    ]


async def open_breaker(api: Client, upstream: Upstream) -> Any:
    """Fail as often as the threshold; the job whose call has opened the breaker."""
    assert upstream.state == "down"
    return [await end_of_job(api) for _ in range(LIMITS["threshold"])][-1]


# --- opening and closing


@pytest.mark.parametrize("type", ["shout", "shout-in-thread"])
async def test_failures_open_it_and_a_fallback_stands_in(
    client: Connect, clock: FakeClock, upstream: Upstream, type: str
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    job = [await end_of_job(api, type) for _ in range(3)][-1]
    assert (job["status"], job["result"]) == ("completed", "hey!")
    [issue] = job["issues"]
    assert issue["code"] == "llm_failure_fallback"
    assert "ConnectionError: it is down" in issue["message"]
    assert await texts(api.service, job["job_id"]) == [
        "Circuit breaker OPENING: 3 failures within 300s window (threshold: 3)",
        "llm_failure_fallback: a fallback was used: ConnectionError: it is down",
    ]
    spared = await end_of_job(api, type)
    assert upstream.calls == 3
    assert (spared["status"], spared["result"]) == ("completed", "hey!")
    assert spared["issues"][0]["code"] == "llm_failure_fallback"
    assert (await texts(api.service, spared["job_id"]))[0] == (
        "Circuit breaker is OPEN. Using fallback."
    )


async def test_it_can_be_seen_with_the_job_that_opened_it(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    assert (await api.get("/v1/breakers")).json["breakers"] == []
    await end_of_job(api)
    assert await state(api) == {
        "name": "llm",
        "state": "closed",
        "failures": 1,
        "threshold": 3,
        "window_s": 300,
        "cooldown_s": 600,
        "opened_at": None,
        "open_until": None,
        "changed_at": None,
        "job_id": None,
    }
    await end_of_job(api)
    job = await end_of_job(api)
    seen = await state(api)
    assert (seen["state"], seen["job_id"]) == ("open", job["job_id"])
    assert seen["opened_at"] == seen["changed_at"] == "2025-01-01T00:00:00.000000Z"
    assert seen["open_until"] == "2025-01-01T00:10:00.000000Z"
    [changed] = await recorded_of(api.service, job["job_id"], BreakerChanged)
    assert isinstance(changed.event, BreakerChanged)
    assert (changed.event.state, changed.event.failures) == ("open", 3)
    history = (await api.get(f"/v1/jobs/{job['job_id']}/history")).json
    assert "the circuit breaker of llm is open" in [each["text"] for each in history["entries"]]


async def test_after_the_cooldown_one_call_is_let_through_and_closes_it(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    upstream.state = "up"
    await clock.advance(599)
    assert (await end_of_job(api))["result"] == "hey!"
    await clock.advance(1)
    assert (await state(api))["state"] == "half_open"
    job = await end_of_job(api)
    assert (job["result"], job["issues"]) == ("HEY", [])
    assert await texts(api.service, job["job_id"]) == [
        "Circuit breaker cooldown complete. Closing circuit."
    ]
    seen = await state(api)
    assert (seen["state"], seen["job_id"]) == ("closed", job["job_id"])
    assert (seen["opened_at"], seen["open_until"], seen["failures"]) == (None, None, 0)
    upstream.state = "down"
    await end_of_job(api)
    assert (await state(api))["state"] == "closed"  # it counts from nothing again


async def test_a_trial_that_fails_opens_it_once_more(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    await clock.advance(600)
    job = await end_of_job(api)
    assert upstream.calls == 4
    assert (await texts(api.service, job["job_id"]))[0] == (
        "Circuit breaker OPENING: the trial after the cooldown failed"
    )
    await clock.advance(599)
    await end_of_job(api)
    assert upstream.calls == 4
    assert (await state(api))["open_until"] == "2025-01-01T00:20:00.000000Z"


async def test_others_do_not_join_the_trial(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    await clock.advance(600)
    upstream.state = "hangs"
    trial = asyncio.create_task(end_of_job(api))
    await upstream.called.wait()
    assert (await end_of_job(api))["result"] == "hey!"
    assert upstream.calls == 3  # the trial waits for its answer
    upstream.state = "up"
    upstream.goes_on.set()
    assert (await trial)["result"] == "HEY"


async def test_a_trial_that_was_cut_short_leaves_it_to_the_next(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    await clock.advance(600)
    upstream.state = "hangs"
    trial = await api.submit("shout", payload="hey")
    await upstream.called.wait()
    await api("POST", f"/v1/jobs/{trial['job_id']}/cancel")
    assert (await api.service.wait(trial["job_id"])).status == "cancelled"
    upstream.state = "up"
    assert (await end_of_job(api))["result"] == "HEY"


async def test_failures_that_lie_further_apart_than_the_window_do_not_open_it(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    for _ in range(6):
        await end_of_job(api)
        await clock.advance(150)
    assert upstream.calls == 6
    assert (await state(api))["failures"] == 1
    await end_of_job(api)
    await end_of_job(api)
    assert (await state(api))["state"] == "open"


async def test_what_is_wrong_with_the_job_says_nothing_about_what_was_called(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    upstream.state = "refuses"
    for _ in range(4):
        job = await end_of_job(api)
        assert (job["status"], job["error"]["code"]) == ("failed", "bad_request")
    assert (await state(api))["failures"] == 0


# --- without a fallback


async def test_a_job_without_a_fallback_is_tried_again_when_the_breaker_may_close(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    await clock.advance(200)
    upstream.state = "up"
    job_id = (await api.submit("no-fallback", payload="hey"))["job_id"]
    waits = await job_when(api.service, job_id, lambda job: job.error is not None)
    assert waits.error is not None
    assert (waits.status, waits.error["code"]) == ("queued", "breaker_open")
    assert waits.due_us == clock.now_us() + 400_000_000
    ended = await time_passing(clock, api.service.wait(job_id), step_s=10)
    assert (ended.status, ended.result, ended.attempt) == ("completed", "HEY", 2)


async def test_a_thread_without_a_fallback_fails_with_a_code(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    job = await end_of_job(api, "no-fallback-in-thread")
    assert (job["status"], job["error"]["code"]) == ("failed", "breaker_open")
    assert "llm is open until 2025-01-01T00:10:00" in job["error"]["message"]


def retrying(upstream: Upstream, max_attempts: int) -> Handler:
    """A handler that calls *upstream* through a breaker, again and again."""

    @handler("retrying", max_attempts=max_attempts)
    async def retrying(ctx: Context, payload: Any) -> Any:
        async def ask_through_breaker() -> str:
            async with ctx.breaker("llm", **LIMITS):
                return await upstream.ask("hey")

        return await ctx.retrying("llm", attempts=9)(ask_through_breaker)

    return retrying


async def test_retries_stop_when_the_breaker_opens(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(retrying(upstream, max_attempts=1), clock=clock)
    job_id = (await api.submit("retrying"))["job_id"]
    ended = await time_passing(clock, api.service.wait(job_id))
    assert upstream.calls == 3
    assert ended.error is not None
    assert ended.error["code"] == "breaker_open"


# --- rejected calls


def holding(ask: Any, **limits: Any) -> Any:
    limits = {"threshold": 3, "window_s": 60, "cooldown_s": 10, **limits}

    @handler("held", max_attempts=3, retry_delay_s=1)
    async def call(ctx: Context, payload: Any) -> Any:
        async with ctx.breaker("llm", **limits):
            return await ask()

    return call


async def test_jobs_that_are_held_off_survive_however_long_it_is_open(
    serve: Serve, clock: FakeClock, upstream: Upstream
) -> None:
    """30 jobs of 3 attempts each, and 6 cooldowns: OpenViking#3717, smallrye#319."""

    async def ask() -> str:
        if upstream.state == "up":
            await sleep(clock, 1)  # the trial takes a moment
        return await upstream.ask("hey")

    service = await serve(holding(ask), clock=clock)
    ids = [(await service.submit("held")).job_id for _ in range(30)]
    upstream.state = "down"
    # A failed call counts: each trial takes one attempt of one job.
    for _ in range(60):
        await clock.advance(0.5)
    ends = [job for each in ids if (job := await service.jobs.current(each)) and job.finished]
    assert len(ends) <= upstream.calls // 3, "all 3 attempts of these have called"
    ids = [each for each in ids if each not in {job.job_id for job in ends}]
    assert len(ids) >= 27
    upstream.state = "up"
    ended = [await time_passing(clock, service.wait(each), 0.5) for each in ids]
    assert {job.status for job in ended} == {"completed"}
    assert all(job.tries <= 3 for job in ended)
    assert max(job.attempt for job in ended) > 3


async def test_an_attempt_that_has_called_in_vain_counts(
    serve: Serve, clock: FakeClock, upstream: Upstream
) -> None:
    service = await serve(retrying(upstream, max_attempts=2), clock=clock)
    job_id = (await service.submit("retrying")).job_id
    ended = await time_passing(clock, service.wait(job_id), 10)
    assert (ended.status, ended.attempt, upstream.calls) == ("failed", 2, 4)


async def test_of_several_breakers_the_open_one_holds_a_job_off(
    serve: Serve, clock: FakeClock, upstream: Upstream
) -> None:
    other = Upstream()
    other.state = "up"

    @handler("both", max_attempts=2)
    async def both(ctx: Context, payload: Any) -> Any:
        await ctx.breaker("other", **LIMITS).call(other.ask, "x")
        return await ctx.breaker("llm", **LIMITS).call(upstream.ask, "hey")

    service = await serve(both, *handlers(upstream), clock=clock)
    for _ in range(3):
        await service.wait((await service.submit("shout", "hey")).job_id)
    job_id = (await service.submit("both")).job_id
    waits = await job_when(service, job_id, lambda job: job.error is not None)
    assert (waits.tries, waits.attempt) == (0, 1)
    upstream.state = "up"
    assert (await time_passing(clock, service.wait(job_id), 10)).result == "HEY"


async def test_a_trial_in_a_thread_that_is_not_over_with_its_attempt_is_left_to_the_next(
    serve: Serve, clock: FakeClock
) -> None:
    go, begun = threading.Event(), threading.Event()

    @handler("stuck", max_attempts=1)
    def stuck(ctx: ThreadContext, payload: Any) -> Any:
        with ctx.breaker("llm", threshold=1, cooldown_s=10):
            if payload == "fail":
                raise ConnectionError
            begun.set()
            go.wait(20)

    service = await serve(stuck, clock=clock, grace_s=1)
    await time_passing(clock, service.wait((await service.submit("stuck", "fail")).job_id))
    await clock.advance(10)
    trial = await service.submit("stuck")
    await asyncio.to_thread(begun.wait, 20)
    await service.jobs.cancel(trial.job_id, actor="test")
    await time_passing(clock, service.wait(trial.job_id))
    assert service.breakers.enter("llm", BreakerConfig(1, 300, 10)) is True
    go.set()


async def test_why_tells_of_a_job_that_is_held_off_without_end(
    client: Connect, clock: FakeClock, upstream: Upstream
) -> None:
    api = await client(*handlers(upstream), clock=clock)
    await open_breaker(api, upstream)
    job_id = (await api.submit("no-fallback", payload="hey"))["job_id"]
    await job_when(api.service, job_id, lambda job: job.error is not None)
    reasons = (await api.get(f"/v1/jobs/{job_id}/why")).json["reasons"]
    assert [each["code"] for each in reasons] == ["retry_delay", "breaker_open"]
    assert "0 of 2 attempts are used" in reasons[0]["text"]


# --- in a process of its own


async def test_a_trial_whose_process_is_killed_is_left_to_the_next(client: Connect) -> None:
    api = await client(careful, call_delay_s=0)
    api.service.breakers.restore([("remote", 0, 1)])  # its cooldown is over
    job = await end_of_job(api, "careful", {"failures": -1}, max_attempts=1)
    assert job["error"]["code"] == "worker_crashed"
    assert api.service.breakers.enter("remote", BreakerConfig(1, 60, 60)) is True


async def test_a_handler_in_a_process_shares_the_breakers_of_the_service(client: Connect) -> None:
    api = await client(careful, call_delay_s=0)

    async def run(failures: int) -> Any:
        return await end_of_job(api, "careful", {"failures": failures})

    mended = await run(1)
    assert (mended["result"], mended["issues"]) == ("answer", [])
    assert await texts(api.service, mended["job_id"]) == [
        "remote: Attempt 1/2",
        "remote: Attempt 2/2",
    ]
    broken = await run(2)
    assert broken["result"] == "fallback"
    assert broken["issues"][0]["code"] == "remote_failure_fallback"
    assert (await texts(api.service, broken["job_id"]))[2] == (
        "Circuit breaker OPENING: 1 failures within 60s window (threshold: 1)"
    )
    seen = await state(api)
    assert (seen["name"], seen["state"], seen["job_id"]) == ("remote", "open", broken["job_id"])
    spared = await run(0)
    assert spared["result"] == "fallback"
    assert (await texts(api.service, spared["job_id"]))[0] == (
        "Circuit breaker is OPEN. Using fallback."
    )


# --- over restarts


async def test_it_stays_open_over_a_restart(
    serve: Serve, clock: FakeClock, upstream: Upstream
) -> None:
    service = await serve(*handlers(upstream), clock=clock)
    for _ in range(3):
        await service.wait((await service.submit("shout", "hey")).job_id)
    await service.close()
    clock.jump_wall(100)  # while nothing runs
    service = await serve(*handlers(upstream), clock=clock)
    upstream.state = "up"
    job = await service.wait((await service.submit("shout", "hey")).job_id)
    assert (job.result, upstream.calls) == ("hey!", 3)
    await clock.advance(499)
    job = await service.wait((await service.submit("shout", "hey")).job_id)
    assert (job.result, upstream.calls) == ("hey!", 3)
    await clock.advance(2)
    job = await service.wait((await service.submit("shout", "hey")).job_id)
    assert (job.result, upstream.calls) == ("HEY", 4)
    await service.close()
    service = await serve(*handlers(upstream), clock=clock)
    job = await service.wait((await service.submit("shout", "hey")).job_id)
    assert (job.result, upstream.calls) == ("HEY", 5)


async def test_a_clock_that_is_set_back_while_nothing_runs_does_not_keep_it_open(
    serve: Serve, clock: FakeClock, upstream: Upstream
) -> None:
    service = await serve(*handlers(upstream), clock=clock)
    for _ in range(3):
        await service.wait((await service.submit("shout", "hey")).job_id)
    await service.close()
    clock.jump_wall(-86_400)
    service = await serve(*handlers(upstream), clock=clock)
    upstream.state = "up"
    job = await service.wait((await service.submit("shout", "hey")).job_id)
    assert (job.result, upstream.calls) == ("hey!", 3)
    await clock.advance(601)
    job = await service.wait((await service.submit("shout", "hey")).job_id)
    assert (job.result, upstream.calls) == ("HEY", 4)


# --- issues


async def test_a_handler_can_note_an_issue_of_its_own(client: Connect) -> None:
    @handler("careless")
    async def careless(ctx: Context, payload: Any) -> str:
        ctx.issue("rows_skipped", "Two rows were not readable.", rows=[3, 9])
        if ctx.attempt == 1:
            raise JobError("again", "once more")
        return "done"

    api = await client(careless)
    job = await end_of_job(api, "careless", retry_delay_s=0)
    assert job["issues"] == [
        {"code": "rows_skipped", "message": "Two rows were not readable.", "rows": [3, 9]}
    ]
    assert (await texts(api.service, job["job_id"])) == [
        "rows_skipped: Two rows were not readable."
    ] * 2


async def test_issues_without_end_are_cut(client: Connect) -> None:
    @handler("careless")
    async def careless(ctx: Context, payload: Any) -> None:
        for number in range(150):
            ctx.issue("odd", f"line {number}")

    api = await client(careless)
    job = await end_of_job(api, "careless")
    assert [each["message"] for each in job["issues"]] == [f"line {n}" for n in range(100)]
