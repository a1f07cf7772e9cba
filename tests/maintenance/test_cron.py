"""Schedules fire at the times of their time zone, once each, also when the clock is set."""

import asyncio
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, model_validator

from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.ids import switch_id
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import CorruptLog, LogUnavailable
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.schedule import schedule
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.log_lines import capture_logs
from tests.support.schedules import HOUR_S, hourly, minutely, nightly, punctual, report, tick, us
from tests.support.waiting import time_passing

# --- firing


async def firings(service: Service) -> list[str]:
    """The times of all firings, in the order of the log."""
    events = await service.log.read(0, 1000)
    return [
        rfc3339(each.event.spec.run_at_us or 0)[11:16]
        for each in events
        if isinstance(each.event, JobSubmitted)
    ]


async def pass_time(clock: FakeClock, seconds: float, step_s: float = 5) -> None:
    for _ in range(int(seconds / step_s)):
        await clock.advance(step_s)


async def firings_when_ended(service: Service, clock: FakeClock, count: int) -> list[str]:
    """The firings, once there are *count* and their jobs have ended."""

    async def enough() -> list[str]:
        head = service.log.head
        while len(times := await firings(service)) < count:
            head = await service.log.wait(head)
        for each in await service.log.read(0, 1000):
            if isinstance(each.event, JobSubmitted):
                await service.wait(each.job_id)
        return times

    async with asyncio.timeout(20):
        return await time_passing(clock, enough(), 0.01)


async def test_it_fires_at_its_times_and_the_jobs_are_as_declared(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(tick, hourly, clock=clock)
    await pass_time(clock, HOUR_S - 30, 30)
    assert await firings(service) == []
    await clock.advance(30)
    assert await firings_when_ended(service, clock, 1) == ["01:00"]
    job = await service.wait(hourly.job_id(us(2025, 1, 1, 1)))
    assert (job.spec.tags, job.spec.priority) == (("t", "schedule:hourly"), 7)
    assert (job.status, job.spec.max_attempts) == ("completed", 3)
    assert job.started_us is not None
    assert job.started_us - us(2025, 1, 1, 1) < 60 * SECOND
    [submitted] = await service.log.read_job(job.job_id, 0, 1)
    assert submitted.actor == "schedule:hourly"
    await pass_time(clock, HOUR_S, 30)
    assert await firings_when_ended(service, clock, 2) == ["01:00", "02:00"]


async def test_a_restart_fires_nothing_twice(serve: Serve, clock: FakeClock) -> None:
    for count in range(1, 4):
        service = await serve(tick, hourly, clock=clock)
        await pass_time(clock, 1800, 30)
        assert len(await firings_when_ended(service, clock, count // 2)) == count // 2
        await time_passing(clock, service.close())
    service = await serve(tick, hourly, clock=clock)
    times = await firings(service)
    assert times == sorted(set(times))


async def test_of_what_was_missed_the_newest_is_made_up_for(serve: Serve, clock: FakeClock) -> None:
    service = await serve(tick, hourly, punctual, clock=clock)
    await pass_time(clock, HOUR_S, 30)
    assert await firings_when_ended(service, clock, 2) == ["01:00", "01:00"]
    await time_passing(clock, service.close())
    clock.jump_wall(5 * HOUR_S + 600)
    again = await serve(tick, hourly, punctual, clock=clock)
    assert await firings_when_ended(again, clock, 3) == ["01:00", "01:00", "06:00"]
    await pass_time(clock, 60)
    assert len(await firings(again)) == 3
    assert await again.jobs.load(punctual.job_id(us(2025, 1, 1, 6))) is None, "it never is late"


async def test_what_was_missed_too_long_ago_is_not_made_up_for(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(report, nightly, clock=clock, catch_up_s=2 * HOUR_S)
    await pass_time(clock, 3 * HOUR_S, 30)  # 03:00 in Oslo is 02:00 UTC
    assert await firings_when_ended(service, clock, 1) == ["02:00"]
    await time_passing(clock, service.close())
    clock.jump_wall(26 * HOUR_S)  # to 05:00 UTC
    service = await serve(report, nightly, clock=clock, catch_up_s=2 * HOUR_S)
    await pass_time(clock, 300)
    assert await firings(service) == ["02:00"]


async def test_a_new_schedule_has_missed_nothing(serve: Serve, clock: FakeClock) -> None:
    clock.jump_wall(5 * HOUR_S)
    service = await serve(report, nightly, clock=clock)
    await pass_time(clock, 120)
    assert await firings(service) == []


async def test_it_goes_on_though_its_last_job_is_hidden(serve: Serve, clock: FakeClock) -> None:
    service = await serve(tick, hourly, clock=clock, ttl_s=0)
    await pass_time(clock, HOUR_S + 60, 30)
    await firings_when_ended(service, clock, 1)
    await time_passing(clock, service.close())
    clock.jump_wall(HOUR_S)
    again = await serve(tick, hourly, clock=clock)
    assert await firings_when_ended(again, clock, 2) == ["01:00", "02:00"]


async def test_a_clock_that_jumps_forward_is_noticed_and_one_that_goes_back_repeats_nothing(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(tick, hourly, clock=clock)
    clock.jump_wall(1.5 * HOUR_S)
    await pass_time(clock, 30)  # no more
    assert await firings_when_ended(service, clock, 1) == ["01:00"]
    clock.jump_wall(-HOUR_S)
    await pass_time(clock, HOUR_S, 30)
    assert await firings(service) == ["01:00"], "again 01:00, which has its job"
    await pass_time(clock, HOUR_S, 30)
    assert await firings_when_ended(service, clock, 2) == ["01:00", "02:00"]


async def test_a_schedule_is_not_silent_for_long_when_the_clock_is_set_back(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(tick, minutely, hourly, clock=clock)
    await pass_time(clock, 1.5 * HOUR_S, 30)
    assert len(await firings(service)) == 91
    clock.jump_wall(-HOUR_S)
    await pass_time(clock, 600, 15)
    again = (await firings(service))[91:]
    assert again == [f"00:{minute}" for minute in range(31, 41)]
    await time_passing(clock, service.close())
    clock.jump_wall(-600)  # while it is not there
    service = await serve(tick, minutely, hourly, clock=clock)
    before = len(await firings(service))
    await pass_time(clock, 600, 15)
    again = (await firings(service))[before:]
    assert len(again) == len(set(again)) >= 6, "all but the first and the last three"


async def test_a_clock_that_is_set_back_a_little_submits_no_time_twice(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(tick, minutely, clock=clock)
    for _ in range(10):
        await pass_time(clock, 60)
        clock.jump_wall(-2)
    await pass_time(clock, 300)
    clock.jump_wall(-170)
    await pass_time(clock, 600)
    times = await firings(service)
    assert times == sorted(set(times))


async def test_a_firing_waits_for_a_log_that_takes_nothing(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(tick, hourly, clock=clock)
    refused: list[int] = []
    submit = Jobs.submit

    async def refuse(self: Jobs, *arguments: Any, **more: Any) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise LogUnavailable
        return await submit(self, *arguments, **more)

    monkeypatch.setattr(Jobs, "submit", refuse)
    await pass_time(clock, HOUR_S + 60, 30)
    assert await firings_when_ended(service, clock, 1) == ["01:00"]
    assert len(refused) == 3


# --- failing


class Odd(BaseException):
    """No Exception, and it cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no")


class Strict(BaseModel):
    """What it accepts is up to a test."""

    refusal: ClassVar[BaseException | None] = None

    @model_validator(mode="before")
    @classmethod
    def check(cls, value: Any) -> Any:
        if cls.refusal is not None:
            raise cls.refusal
        return value


@handler("strict")
async def strict(context: Context, payload: Strict) -> None: ...


a_minute = schedule("a minute", "* * * * *", "strict", {})


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (ValueError("no such region"), "invalid_input"),
        (RuntimeError("no such region"), "firing_failed"),
        (KeyError("region"), "firing_failed"),
        (Odd(), "firing_failed"),
        (SystemExit(3), "firing_failed"),
        (asyncio.CancelledError(), "firing_failed"),
    ],
)
async def test_a_schedule_that_is_refused_ends_no_other_and_goes_on_itself(
    client: Connect,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    refusal: BaseException,
    code: str,
) -> None:
    """django-celery-beat#748"""
    api = await client(strict, tick, a_minute, minutely, clock=clock)
    monkeypatch.setattr(Strict, "refusal", refusal)
    with capture_logs() as lines:
        await pass_time(clock, 130)
    assert await firings(api.service) == ["00:01", "00:02"], "the other one's"
    errors = [each for each in lines if each["log_level"] == "error"]
    assert [each["schedule"] for each in errors] == ["a minute"] * 2
    [schedule, other] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["last_error"]["code"] == code
    assert schedule["last_error"]["at"] == "2025-01-01T00:02:00.000000Z"
    assert (schedule["last"], other["last_error"]) == (None, None)
    assert api.service.ready
    monkeypatch.setattr(Strict, "refusal", None)
    await pass_time(clock, 60)
    assert sorted(await firings(api.service)) == ["00:01", "00:02", "00:03", "00:03"]
    [schedule, _] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["last_error"] is None


async def test_a_schedule_whose_type_has_gone_ends_no_other(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(strict, tick, a_minute, minutely, clock=clock)
    del api.service.handlers._by_type["strict"]
    await pass_time(clock, 130)
    assert await firings(api.service) == ["00:01", "00:02"]
    [schedule, _] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["last_error"]["code"] == "unknown_type"


async def test_a_firing_whose_id_is_taken_is_said_and_the_next_is_submitted(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(tick, minutely, clock=clock)
    job_id = minutely.job_id(us(2025, 1, 1, 0, 1))
    await api.service.jobs.submit(JobSpec("tick", "something else"), actor="x", job_id=job_id)
    await pass_time(clock, 70)
    [schedule] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["last_error"]["code"] == "job_exists"
    await pass_time(clock, 60)
    assert (await firings(api.service))[1:] == ["00:02"]


async def test_a_schedule_whose_past_cannot_be_read_is_told_all_the_same(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last job is in a log that was damaged; the other schedules have nothing to do with it."""
    glimpse = Jobs.load_even_parked
    first = minutely.job_id(us(2025, 1, 1, 0, 1))

    async def read_damaged(self: Jobs, job_id: str) -> Any:
        if job_id == first:
            raise CorruptLog
        return await glimpse(self, job_id)

    api = await client(tick, hourly, minutely, clock=clock)
    monkeypatch.setattr(Jobs, "load_even_parked", read_damaged)
    await pass_time(clock, 70)
    [_, schedule] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["last"] is None
    await pass_time(clock, 60)
    assert await firings(api.service) == ["00:01", "00:02"]


# --- statuses


async def test_schedules_are_told_with_their_last_and_next_job(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(tick, report, hourly, nightly, clock=clock, ttl_s=24 * HOUR_S)
    schedules = (await api.get("/v1/schedules")).json["schedules"]
    assert [each["name"] for each in schedules] == ["hourly", "nightly"]
    assert schedules[1] == {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "Europe/Oslo",
        "type": "report",
        "payload": {"days": 1},
        "next_at": "2025-01-01T02:00:00.000000Z",
        "last": None,
        "last_error": None,
        "paused": None,
        "jobs": "/v1/jobs?tag=schedule%3Anightly",
    }
    await pass_time(clock, HOUR_S + 60, 30)
    await firings_when_ended(api.service, clock, 1)
    job_id = hourly.job_id(us(2025, 1, 1, 1))
    await api.service.wait(job_id)
    [schedule, _] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["next_at"] == "2025-01-01T02:00:00.000000Z"
    assert schedule["last"] == {
        "at": "2025-01-01T01:00:00.000000Z",
        "job_id": job_id,
        "status": "completed",
        "url": f"/v1/jobs/{job_id}",
    }
    [listed] = (await api.get(schedule["jobs"])).json["jobs"]
    assert listed["job_id"] == job_id
    await api("DELETE", f"/v1/jobs/{job_id}")
    [schedule, _] = (await api.get("/v1/schedules")).json["schedules"]
    assert (schedule["last"]["status"], schedule["last"]["url"]) == ("completed", None)
    # The job of a client with that tag is no firing.
    await api.submit("tick", tags=["schedule:hourly"])
    [schedule, _] = (await api.get("/v1/schedules")).json["schedules"]
    assert schedule["last"] is None


# --- pausing


async def test_a_paused_schedule_submits_nothing_also_after_a_restart(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(tick, hourly, punctual, clock=clock)
    reply = await api("POST", "/v1/schedules/hourly/pause", {"reason": "it is too much"})
    assert reply.status == 200
    pause = reply.json["paused"]
    assert (pause["by"], pause["reason"], reply.json["next_at"]) == ("http", "it is too much", None)
    await pass_time(clock, HOUR_S + 60, 30)
    assert await firings_when_ended(api.service, clock, 1) == ["01:00"], "the other one's"
    await time_passing(clock, api.service.close())

    api = await client(tick, hourly, clock=clock)
    await pass_time(clock, HOUR_S, 30)
    [schedule] = (await api.get("/v1/schedules")).json["schedules"]
    assert (schedule["paused"], schedule["next_at"], schedule["last"]) == (pause, None, None)
    assert await firings(api.service) == ["01:00"]
    schedule = (await api("POST", "/v1/schedules/hourly/resume")).json
    assert (schedule["paused"], schedule["next_at"]) == (None, "2025-01-01T03:00:00.000000Z")
    await pass_time(clock, HOUR_S, 30)
    assert await firings_when_ended(api.service, clock, 2) == ["01:00", "03:00"], (
        "what was left out stays so"
    )


async def test_what_a_pause_left_out_is_not_made_up_for_by_a_restart(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(tick, hourly, clock=clock)
    await pass_time(clock, HOUR_S + 60, 30)
    assert await firings_when_ended(api.service, clock, 1) == ["01:00"]
    await api("POST", "/v1/schedules/hourly/pause")
    await pass_time(clock, HOUR_S, 30)
    await api("POST", "/v1/schedules/hourly/resume")
    await time_passing(clock, api.service.close())
    api = await client(tick, hourly, clock=clock)
    await pass_time(clock, 300, 30)
    assert await firings(api.service) == ["01:00"]
    await pass_time(clock, HOUR_S, 30)
    assert await firings_when_ended(api.service, clock, 2) == ["01:00", "03:00"]


async def test_no_job_can_be_given_the_id_of_its_switch_or_of_a_firing(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(tick, hourly, clock=clock)
    for job_id in (switch_id("schedule", "hourly"), hourly.job_id(us(2025, 1, 1, 1))):
        reply = await api("PUT", f"/v1/jobs/{job_id}", {"type": "tick"})
        assert (reply.status, reply.code) == (422, "reserved_id")
    await pass_time(clock, HOUR_S + 60, 30)
    assert await firings_when_ended(api.service, clock, 1) == ["01:00"]


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_schedule_that_nobody_declared_cannot_be_paused(client: Connect, verb: str) -> None:
    api = await client(tick, hourly)
    reply = await api("POST", f"/v1/schedules/hourli/{verb}")
    assert (reply.status, reply.code) == (422, "unknown_schedule")
    assert "there are: hourly" in reply.json["detail"]
    assert api.service.log.head == 0


async def test_a_service_without_schedules_says_so(client: Connect) -> None:
    assert (await (await client(tick)).get("/v1/schedules")).json == {"schedules": [], "next": None}
