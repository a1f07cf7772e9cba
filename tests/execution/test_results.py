"""The outcome of a handler, by what it returns or raises."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from eventjobs.attempts.recorder import RETRY_AFTER_MAX_S
from eventjobs.domain.events import (
    AttemptFailed,
    JobCompleted,
)
from eventjobs.domain.job import Job
from eventjobs.errors import JobError
from eventjobs.execution.results import failure
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.hostile import (
    OddNumber,
    Reads,
)
from tests.support.waiting import job_when, recorded_of


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@pytest.mark.parametrize("result", [None, False, 0, "", [], {"a": [1.5, {"b": None}]}, "ü\0"])
async def test_what_json_holds_is_a_result(serve: Serve, result: Any) -> None:
    service = await serve(echo)
    job = await service.submit("echo", result)
    assert (await service.wait(job.job_id)).result == result


@dataclass
class Measured:
    value: float


def nest(depth: int) -> Any:
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
    "too deep": lambda: nest(254),
    "deeper than the views can store": lambda: nest(252),
    "much too deep": lambda: nest(5000),
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
    job = await service.submit("echo", nest(100))
    assert (await service.wait(job.job_id)).result == nest(100), "and the service goes on"


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
    [artifact] = job.artifacts
    assert (artifact.name, artifact.size, artifact.media_type) == (
        "result.json",
        size + 2,
        "application/json",
    )
    assert orjson.loads(service.artifacts.path(artifact.sha256).read_bytes()) == "x" * size


async def test_a_result_too_large_for_a_file_fails_for_good(serve: Serve) -> None:
    service = await serve(echo, result_bytes_max=1024, artifact_bytes_max=1500)
    job = await service.submit("echo", "x" * 2000)
    job = await service.wait(job.job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert job.error["code"] == "too_large"


async def ends_of(service: Service, type: str, payloads: Iterator[Any]) -> dict[Any, Job]:
    ids = {each: (await service.submit(type, each)).job_id for each in payloads}
    async with asyncio.timeout(60):
        return {each: await service.wait(job_id) for each, job_id in ids.items()}


# --- errors


@pytest.mark.parametrize(
    ("given", "delay_s"),
    [
        (5, 5),
        ("60", 60),
        (0, 0),
        (math.inf, None),
        (math.nan, None),
        (-5, None),
        ("soon", None),
        (True, None),
        (10**400, None),
        (OddNumber(), None),
        (1e14, RETRY_AFTER_MAX_S),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OddNumber) else repr(value)[:20],
)
async def test_a_delay_that_is_none_leaves_the_usual_one(
    serve: Serve, clock: FakeClock, given: Any, delay_s: float | None
) -> None:
    @handler("busy", max_attempts=2, retry_delay_s=7)
    async def busy(context: Context, payload: Any) -> None:
        raise JobError("BUSY", "later", retry_after_s=given)

    service = await serve(busy, clock=clock)
    job = await service.submit("busy")
    job = await job_when(service, job.job_id, lambda job: job.error is not None)
    waits_s = (job.due_us - job.updated_us) / SECOND
    if delay_s is None:
        assert 5 < waits_s < 9
    else:
        assert waits_s == delay_s


async def test_details_and_issues_have_a_limit(serve: Serve) -> None:
    @handler("much", max_attempts=1)
    async def much(context: Context, payload: str) -> None:
        for number in range(200):
            context.issue("slow", "it was slow", text="x" * 2_000, number=number)
        if payload == "fails":
            raise JobError("large", "too much", details={"text": "x" * 30_000_000})

    service = await serve(much)
    jobs = await ends_of(service, "much", iter(["fails", "completes"]))
    [failed] = await recorded_of(service, jobs["fails"].job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert len(failed.body or b"") < 80_000
    assert failed.event.details["cut"].startswith('{"text":"xxx')
    [completed] = await recorded_of(service, jobs["completes"].job_id, JobCompleted)
    assert isinstance(completed.event, JobCompleted)
    assert len(completed.body or b"") < 80_000
    assert [each["number"] for each in completed.event.issues] == list(range(31))


def test_a_traceback_has_the_frames_of_the_handler_and_not_ours() -> None:
    def inner() -> None:
        raise ValueError("no")

    try:
        inner()
    except ValueError as error:
        trace = failure(error).trace or ""
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "in inner" in trace
    assert trace.endswith("ValueError: no\n")


def test_of_a_group_its_members_are_told() -> None:
    group = ExceptionGroup("several", [ValueError("first"), ExceptionGroup("x", [KeyError(2)])])
    failed = failure(group)
    assert failed.message == "ExceptionGroup: several (2 sub-exceptions): ValueError: first"
    assert "  | ValueError: first\n" in (failed.trace or "")
    assert "  |   | KeyError: 2\n" in (failed.trace or "")


def test_what_has_no_text_is_told_by_its_class() -> None:
    class Silent(Exception):
        __str__ = Reads.__str__

    assert "Silent" in failure(Silent()).message
