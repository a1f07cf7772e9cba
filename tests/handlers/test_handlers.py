"""What users write, and what it may do while it runs."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from eventjobs.clock import sleep
from eventjobs.domain.events import ArtifactStored, LogWritten, ProgressReported
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import InvalidInput, UnknownArtifact, UnknownType
from eventjobs.execution import reporter as reports
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler, HandlerRegistry
from eventjobs.handlers.thread_context import ThreadContext
from tests.conftest import Serve
from tests.support.clock import FakeClock
from tests.support.waiting import job_when, recorded_of, time_passing


class Order(BaseModel):
    item: str
    count: int = Field(1, ge=1)


@handler("order")
async def order(context: Context, payload: Order) -> dict[str, Any]:
    return {"told": f"{payload.count} x {payload.item}"}


@handler("order in a thread")
def order_in_a_thread(context: ThreadContext, payload: Order) -> Order:
    return payload


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("who")
async def who(context: Context, payload: Any) -> list[Any]:
    return [context.job_id, context.attempt, context.spec.tags, context.cancelled]


# --- registering


def test_a_handler_takes_a_context_and_a_payload() -> None:
    with pytest.raises(TypeError, match=r"'one' must take \(context, payload\)"):

        @handler("one")
        async def one(context: Context) -> None: ...

    with pytest.raises(TypeError, match=r"'named' must take \(context, payload\)"):

        @handler("named")
        async def named(context: Context, *, payload: Any) -> None: ...


def test_handlers_come_from_a_module_a_list_or_one_alone() -> None:
    module = ModuleType("mine")
    vars(module).update(first=echo, second=order, other=5)
    for holder, types in [
        (module, ["echo", "order"]),
        ([echo, who], ["echo", "who"]),
        (echo, ["echo"]),
        (HandlerRegistry([who]), ["who"]),
        ((), []),
    ]:
        assert HandlerRegistry.of(holder).types() == types
    with pytest.raises(TypeError, match="holds no handlers"):
        HandlerRegistry.of(5)


def test_two_handlers_of_one_type_are_refused() -> None:
    with pytest.raises(ValueError, match="two handlers for 'echo'"):
        HandlerRegistry([echo, replace(order, type="echo")])


def test_an_unknown_type_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownType, match="there are: echo, who"):
        HandlerRegistry([who, echo]).get("other")


# --- payloads and results


async def test_a_payload_that_does_not_fit_is_refused_and_its_fields_named(serve: Serve) -> None:
    service = await serve(order)
    with pytest.raises(InvalidInput) as refusal:
        await service.submit("order", {"count": 0})
    fields = {each["field"]: each["message"] for each in refusal.value.errors}
    assert set(fields) == {"payload.item", "payload.count"}
    assert service.log.head == 0


@pytest.mark.parametrize("kind", ["order", "order in a thread"])
async def test_a_handler_gets_its_payload_as_the_model(serve: Serve, kind: str) -> None:
    service = await serve(order, order_in_a_thread)
    job = await service.submit(kind, {"item": "tea", "count": 2})
    job = await service.wait(job.job_id)
    assert job.spec.payload == {"item": "tea", "count": 2}
    assert job.result in ({"told": "2 x tea"}, {"item": "tea", "count": 2})


async def test_a_payload_that_fits_no_longer_fails_for_good(serve: Serve) -> None:
    """It was accepted by an older handler, say: trying again would not help."""
    service = await serve(order)
    outcome = await service.jobs.submit(JobSpec("order", {}, max_attempts=3), actor="test")
    job = await service.wait(outcome.job.job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error == {
        "code": "invalid_payload",
        "class": "input",
        "message": "the payload does not fit order",
        "retryable": False,
    }


async def test_a_handler_knows_its_job(serve: Serve) -> None:
    service = await serve(who)
    job = await service.submit("who", tags=["a", "b"])
    job = await service.wait(job.job_id)
    assert job.result == [job.job_id, 1, ["a", "b"], False]


@pytest.mark.parametrize("result", [None, False, 0, "", [], {"a": [1.5, {"b": None}]}, "ü\0"])
async def test_what_json_holds_is_a_result(serve: Serve, result: Any) -> None:
    service = await serve(echo)
    job = await service.submit("echo", result)
    assert (await service.wait(job.job_id)).result == result


@dataclass
class Measured:
    value: float


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NOT_JSON: dict[str, Callable[[], Any]] = {
    "an object": object,
    "bytes": lambda: b"bytes",
    "a set": lambda: {1, 2},
    "a key that is no text": lambda: {1: 2},
    "not a number": lambda: math.nan,
    "infinity, deep inside": lambda: {"a": [1, {"b": -math.inf}]},
    "not a number in a dataclass": lambda: Measured(math.nan),
    "more than 64 bits": lambda: 2**64,
    "half a surrogate pair": lambda: "\ud800",
    "too deep": lambda: nested(254),
    "deeper than the views can store": lambda: nested(252),
    "much too deep": lambda: nested(5000),
}


@pytest.mark.parametrize("name", NOT_JSON)
async def test_a_result_that_json_cannot_hold_fails_for_good(serve: Serve, name: str) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> Any:
        return NOT_JSON[name]()

    service = await serve(bad, echo)
    job = await service.submit("bad", max_attempts=3)
    job = await service.wait(job.job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert job.error["code"] == "result_not_json"
    job = await service.submit("echo", nested(100))
    assert (await service.wait(job.job_id)).result == nested(100), "and the service goes on"


@pytest.mark.parametrize(("size", "large"), [(1022, False), (1023, True)])
async def test_a_result_too_large_for_an_event_becomes_a_file(
    serve: Serve, size: int, large: bool
) -> None:
    service = await serve(echo, result_bytes_max=1024)
    job = await service.submit("echo", "x" * size)
    job = await service.wait(job.job_id)
    if not large:
        assert job.result == "x" * size
        return
    assert job.result == {"artifact": "result.json", "size": size + 2}
    [kept] = job.artifacts
    assert (kept.name, kept.size, kept.media_type) == ("result.json", size + 2, "application/json")
    assert orjson.loads(service.artifacts.path(kept.sha256).read_bytes()) == "x" * size


async def test_a_result_too_large_for_a_file_fails_for_good(serve: Serve) -> None:
    service = await serve(echo, result_bytes_max=1024, artifact_bytes_max=1500)
    job = await service.submit("echo", "x" * 2000)
    job = await service.wait(job.job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert job.error["code"] == "too_large"


# --- progress


def of(recorded: list[Recorded]) -> list[ProgressReported]:
    return [each.event for each in recorded if isinstance(each.event, ProgressReported)]


async def test_progress_faster_than_the_rate_is_the_first_and_the_last(serve: Serve) -> None:
    @handler("count")
    async def count(context: Context, payload: Any) -> None:
        for number in range(1, 1001):
            context.progress(number, 1000, message=f"row {number}")

    service = await serve(count)
    job = await service.submit("count")
    await service.wait(job.job_id)
    told = of(await recorded_of(service, job.job_id, ProgressReported))
    assert [(each.done, each.message) for each in told] == [(1, "row 1"), (1000, "row 1000")]


async def test_progress_is_stored_at_the_set_rate(serve: Serve, clock: FakeClock) -> None:
    @handler("count")
    async def count(context: Context, payload: Any) -> None:
        for number in range(1, 101):
            context.progress(number, 100)
            await sleep(clock, 0.1)

    service = await serve(count, clock=clock, progress_interval_s=1.0)
    job = await service.submit("count")
    await time_passing(clock, service.wait(job.job_id), 0.05)
    told = of(await recorded_of(service, job.job_id, ProgressReported))
    done = [each.done or 0 for each in told]
    assert done[0] == 1
    assert done[-1] == 100, "the last one does not wait"
    steps = [b - a for a, b in pairwise(done[:-1])]
    assert set(steps) <= {9, 10, 11}, "ten reports a second, one of them is stored"


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_new_stage_is_never_lost_nor_the_last_word_of_the_one_before(
    serve: Serve, threaded: bool
) -> None:
    def work(context: Context | ThreadContext) -> None:
        for stage in ("read", "sort", "read", "write"):
            for number in range(50):
                context.progress(number, 49, stage=stage if number == 0 else None)

    @handler("stages")
    async def on_the_loop(context: Context, payload: Any) -> None:
        work(context)

    @handler("stages")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        work(context)

    service = await serve(in_a_thread if threaded else on_the_loop, progress_interval_s=60)
    job = await service.submit("stages")
    await service.wait(job.job_id)
    told = of(await recorded_of(service, job.job_id, ProgressReported))
    assert [(each.stage, each.done) for each in told] == [
        ("read", 0),
        (None, 49),
        ("sort", 0),
        (None, 49),
        ("read", 0),
        (None, 49),
        ("write", 0),
        (None, 49),
    ]


class Odd(float):
    """As numpy's float64 is a float that orjson does not know."""


@pytest.mark.parametrize(
    ("done", "stored"),
    [
        (math.nan, None),
        (math.inf, None),
        (10**30, 1e30),
        (10**400, None),
        (Odd(0.5), 0.5),
        (Fraction(1, 4), 0.25),
        (True, 1),
    ],
)
async def test_any_number_can_be_progress(serve: Serve, done: Any, stored: float | None) -> None:
    @handler("odd")
    async def odd(context: Context, payload: Any) -> None:
        context.progress(done, 1)

    service = await serve(odd)
    job = await service.submit("odd")
    assert (await service.wait(job.job_id)).status == "completed"
    [told] = of(await recorded_of(service, job.job_id, ProgressReported))
    assert told.done == stored


# --- logs


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_jobs_log_keeps_its_lines_in_order(serve: Serve, threaded: bool) -> None:
    def work(context: Context | ThreadContext) -> None:
        context.log("first", n=1)
        context.log("second", "warning")
        context.progress(1, 2)
        context.log("third \ud800", "error", path=["a"])
        context.log("x" * 5000, "debug")

    @handler("log")
    async def on_the_loop(context: Context, payload: Any) -> None:
        work(context)

    @handler("log")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        work(context)

    service = await serve(in_a_thread if threaded else on_the_loop)
    job = await service.submit("log")
    await service.wait(job.job_id)
    told = [each.event for each in await service.log.read_job(job.job_id)][2:-1]
    assert told == [
        LogWritten(1, "info", "first", {"n": 1}),
        LogWritten(1, "warning", "second"),
        ProgressReported(1, 1, 2),
        LogWritten(1, "error", "third ?", {"path": ["a"]}),
        LogWritten(1, "debug", "x" * 4000),
    ]


async def test_a_flood_of_lines_is_cut_and_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "WAITING_MAX", 100)

    @handler("flood")
    async def flood(context: Context, payload: Any) -> None:
        for number in range(600):
            context.log(f"line {number}")

    service = await serve(flood)
    job = await service.submit("flood")
    await service.wait(job.job_id)
    told = [each.event for each in await recorded_of(service, job.job_id, LogWritten)]
    assert told[0] == LogWritten(1, "info", "line 0")
    assert told[99] == LogWritten(1, "info", "line 99")
    assert told[100:] == [
        LogWritten(1, "warning", "500 earlier reports were dropped: they came too fast")
    ]


async def test_the_newest_stage_is_told_after_a_flood_of_lines(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be dropped with the lines there was no room for."""
    monkeypatch.setattr(reports, "WAITING_MAX", 100)

    @handler("flood")
    async def flood(context: Context, payload: Any) -> None:
        for number in range(110):
            context.log(f"line {number}")
        context.progress(1, 2, stage="first")
        context.progress(2, 2, stage="second")

    service = await serve(flood)
    job = await service.submit("flood")
    await service.wait(job.job_id)
    told = of(await recorded_of(service, job.job_id, ProgressReported))
    assert [(each.done, each.stage) for each in told] == [(2, "second")]


async def test_a_level_that_there_is_not_is_the_handlers_error(serve: Serve) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        with pytest.raises(ValueError, match="level is one of"):
            context.log("x", "loud")
        context.log("x", field=object)  # what JSON does not have is told as text

    service = await serve(bad)
    job = await service.submit("bad")
    assert (await service.wait(job.job_id)).status == "completed"
    [line] = await recorded_of(service, job.job_id, LogWritten)
    assert isinstance(line.event, LogWritten)
    assert line.event.fields == {"field": "<class 'object'>"}


# --- files


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_stores_files_and_reads_those_of_its_job(
    serve: Serve, tmp_path: Path, threaded: bool
) -> None:
    (tmp_path / "report").write_bytes(b"from a file")

    @handler("files")
    async def on_the_loop(context: Context, payload: Any) -> str:
        context.log("before")
        await context.artifact("a.txt", b"one", "text/plain")
        await context.artifact("b.txt", tmp_path / "report")
        await context.artifact("a.txt", b"two", "text/plain")
        return await asyncio.to_thread(context.input("in.csv").read_text)

    @handler("files")
    def in_a_thread(context: ThreadContext, payload: Any) -> str:
        context.log("before")
        context.artifact("a.txt", b"one", "text/plain")
        context.artifact("b.txt", tmp_path / "report")
        context.artifact("a.txt", b"two", "text/plain")
        return context.input().read_text()

    service = await serve(in_a_thread if threaded else on_the_loop)
    sha256, _ = await asyncio.to_thread(service.artifacts.store, b"the input")
    artifacts = await service.submissions.artifacts_of({"in.csv": sha256})
    job = await service.submit("files", artifacts=artifacts)
    job = await service.wait(job.job_id)
    assert job.result == "the input"
    kept = {each.name: service.artifacts.path(each.sha256).read_bytes() for each in job.artifacts}
    assert kept == {"in.csv": b"the input", "b.txt": b"from a file", "a.txt": b"two"}
    events = await service.log.read_job(job.job_id)
    told = ["LogWritten", *["LogWritten", "ArtifactStored"] * 3]
    assert [each.type for each in events[2:-1]] == told


async def test_a_file_that_is_not_there_fails_for_good(serve: Serve) -> None:
    @handler("missing")
    async def missing(context: Context, payload: Any) -> Path:
        return context.input("in.csv")

    service = await serve(missing)
    job = await service.submit("missing")
    job = await service.wait(job.job_id)
    assert job.error == {
        "code": "artifact_missing",
        "class": "artifact",
        "message": "the job has no artifact 'in.csv'",
        "retryable": False,
    }
    with pytest.raises(UnknownArtifact):
        await service.submissions.artifacts_of({"in.csv": "ab" * 32})


async def test_a_bad_name_for_a_file_fails_for_good(serve: Serve) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        await context.artifact("../log.db", b"")

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=3)
    job = await service.wait(job.job_id)
    assert (job.attempt, job.error and job.error["code"]) == (1, "invalid_input")


async def test_a_file_is_in_the_log_once_the_handler_goes_on(serve: Serve) -> None:
    seen: list[bool] = []

    @handler("one")
    async def one(context: Context, payload: Any) -> None:
        await context.artifact("a", b"1")
        head = service.log.head
        [stored] = [e for e in await service.log.read(0) if isinstance(e.event, ArtifactStored)]
        seen.append(stored.position <= head)

    service = await serve(one)
    job = await service.submit("one")
    await job_when(service, job.job_id, lambda job: job.finished)
    assert seen == [True]


def test_a_handler_is_never_a_coroutine_by_mistake() -> None:
    assert echo.mode == "loop"
    assert order_in_a_thread.mode == "thread"
    assert isinstance(echo, Handler)
