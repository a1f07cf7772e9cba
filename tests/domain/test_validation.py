"""What is given from Python is checked like what comes over HTTP, before anything is appended."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from eventjobs.client import Client as HTTPClient
from eventjobs.domain.codec import encode
from eventjobs.domain.events import (
    AttemptStarted,
    Event,
    JobSubmitted,
    Paused,
    ProgressReported,
    WebhookAdded,
)
from eventjobs.domain.limits import Rate
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.errors import InvalidInput
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import external, handler, remote
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.schedule import schedule
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.errors import error_fields

SHA256 = "ab" * 32


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


# --- declarations


HANDLER_OPTIONS: list[tuple[str, Any]] = [
    ("max_attempts", 0),
    ("max_attempts", 1.5),
    ("timeout_s", math.nan),
    ("timeout_s", "1"),
    ("stall_timeout_s", 0),
    ("retry_delay_s", -1),
    ("ttl_s", math.inf),
    ("queue", 5),
    ("queue", ""),
    ("concurrency", True),
    ("concurrency", 2.0),
    ("concurrency", 0),
    ("key_concurrency", "1"),
    ("rate", 10),
    ("rate", "often"),
]


@pytest.mark.parametrize(("name", "value"), HANDLER_OPTIONS)
def test_an_option_of_a_handler_that_does_not_fit_is_refused(name: str, value: Any) -> None:
    declared: list[Callable[..., Any]] = [
        handler,
        remote,
        lambda type, **options: external(type, dispatch_url="/x", **options),
    ]
    for declare in declared:
        with pytest.raises(InvalidInput) as refused:
            declare("echo", **{name: value})
        assert error_fields(refused.value) == {name}


def test_the_lowest_limit_of_a_handler_is_one() -> None:
    limits = remote("far", concurrency=1, key_concurrency=1, rate="1/d").limits
    assert (limits.concurrency, limits.key_concurrency, limits.rate) == (1, 1, Rate(1, 86_400))


@pytest.mark.parametrize("type", [5, None, "", "a\0b", "a" * 201, "\ud800", ["echo"]])
def test_the_type_of_a_handler_is_a_name(type: Any) -> None:
    for declare in (handler, remote):
        with pytest.raises(InvalidInput) as refused:
            declare(type)
        assert error_fields(refused.value) == {"type"}


def test_what_else_a_declaration_says_is_checked() -> None:
    wrong: list[tuple[str, Callable[[], Any]]] = [
        ("process", lambda: handler("echo", process="yes")),  # type: ignore[arg-type]
        ("on_shutdown", lambda: handler("echo", on_shutdown=[])),  # type: ignore[arg-type]
        ("model", lambda: remote("echo", model=dict)),  # type: ignore[arg-type]
        ("model", lambda: external("echo", dispatch_url="/x", model=5)),  # type: ignore[arg-type]
        ("dispatch_url", lambda: external("echo", dispatch_url=5)),  # type: ignore[arg-type]
        ("answer_timeout_s", lambda: external("echo", dispatch_url="/", answer_timeout_s=math.nan)),
        ("cron", lambda: schedule("a", 5, "echo")),  # type: ignore[arg-type]
        ("name", lambda: schedule(5, "* * * * *", "echo")),  # type: ignore[arg-type]
        ("timezone", lambda: schedule("a", "* * * * *", "echo", timezone=None)),  # type: ignore[arg-type]
        ("catch_up_s", lambda: schedule("a", "* * * * *", "echo", catch_up_s=True)),
        ("type", lambda: schedule("a", "* * * * *", 5)),  # type: ignore[arg-type]
        ("tags", lambda: schedule("a", "* * * * *", "echo", tags=["x"] * 32)),
        ("parent", lambda: schedule("a", "* * * * *", "echo", parent="x")),
    ]
    for name, declare in wrong:
        with pytest.raises(InvalidInput) as refused:
            declare()
        assert error_fields(refused.value) == {name}


# --- from inside a handler


async def test_what_a_handler_submits_is_checked_in_every_mode(serve: Serve) -> None:
    wrong: list[dict[str, Any]] = [
        {"priority": math.nan},
        {"tags": "abc"},
        {"name": 5},
        {"name": "\ud800"},
        {"parent": "8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11"},
        {"payload": object()},
        {"artifacts": [Artifact("a", SHA256, 1)]},
        {"surprise": 1},
    ]

    @handler("loop")
    async def loop(context: Context, payload: Any) -> int:
        for each in wrong:
            with pytest.raises(InvalidInput):
                await context.submit("echo", **each)
        for name, content, kind in FILES:
            with pytest.raises(InvalidInput):
                await context.artifact(name, content, kind)
        return len(wrong)

    @handler("thread")
    def thread(context: Any, payload: Any) -> int:
        for each in wrong:
            with pytest.raises(InvalidInput):
                context.submit("echo", **each)
        for name, content, kind in FILES:
            with pytest.raises(InvalidInput):
                context.artifact(name, content, kind)
        return len(wrong)

    service = await serve(echo, loop, thread)
    for each in (loop, thread):
        job = await service.wait((await service.submit(each.type)).job_id)
        assert job.result == len(wrong), job.error
    assert {job.spec.type for job in await everything(service)} == {"loop", "thread"}


FILES: list[tuple[Any, Any, Any]] = [
    (5, b"", "text/plain"),
    ("../a", b"", "text/plain"),
    ("a\0", b"", "text/plain"),
    ("a", "text", "text/plain"),
    ("a", None, "text/plain"),
    ("a", b"", "none"),
    ("a", b"", 5),
    ("a", b"", "text/plain\r\nX: 1"),
]


async def everything(service: Service) -> list[Any]:
    await service.views.wait_for_position(service.log.head)
    return [each.job for each in await service.views.jobs({}, order="newest", cursor=None, limit=9)]


async def test_breakers_and_retries_are_checked(serve: Serve) -> None:
    wrong: list[dict[str, Any]] = [
        {"threshold": True},
        {"threshold": 1.5},
        {"window_s": math.nan},
        {"window_s": "1"},
        {"cooldown_s": math.inf},
    ]

    @handler("calls")
    async def calls(context: Context, payload: Any) -> str:
        for each in wrong:
            with pytest.raises(InvalidInput) as refused:
                context.breaker("llm", **each)
            assert error_fields(refused.value) == set(each)
        names: list[Any] = [5, "", "a\0b"]
        for name in names:
            with pytest.raises(InvalidInput):
                context.breaker(name)
        attempts: list[Any] = [0, "3", math.nan]
        for each in attempts:
            with pytest.raises(InvalidInput):
                context.retrying("llm", attempts=each)
        return str(context.breaker("b" * 200).name)

    service = await serve(calls)
    job = await service.wait((await service.submit("calls")).job_id)
    assert job.result == "b" * 100, job.error


async def test_a_client_guesses_no_time_zone(client: Connect) -> None:
    api = await client(echo)
    async with HTTPClient(str(api.listening.url)) as http:
        naive = datetime(2030, 1, 1, 12)  # noqa: DTZ001 -- which is the point
        with pytest.raises(InvalidInput):
            await http.submit("echo", run_at=naive)
        with pytest.raises(InvalidInput):
            await http.page(since=naive)
        job = await http.submit("echo", run_at=datetime(2030, 1, 1, 12, tzinfo=UTC))
        assert job["run_at"] == "2030-01-01T12:00:00.000000Z"


# --- the last line: what a view could not read is not appended


@pytest.mark.parametrize(
    "event",
    [
        JobSubmitted(JobSpec("echo", priority="high")),  # type: ignore[arg-type]
        JobSubmitted(JobSpec("echo", run_at_us=1.5)),  # type: ignore[arg-type]
        JobSubmitted(JobSpec("echo", timeout_s=math.nan)),
        JobSubmitted(JobSpec("echo", artifacts=(Artifact(5, SHA256, 1),))),  # type: ignore[arg-type]
        JobSubmitted(JobSpec("echo", tags="abc")),  # type: ignore[arg-type]
        JobSubmitted(JobSpec("echo", tags={"a": 1})),  # type: ignore[arg-type]
        AttemptStarted(2**63, "worker"),
        AttemptStarted(1, "\ud800"),
        ProgressReported(1, math.inf),
        ProgressReported(1, "1"),  # type: ignore[arg-type]
        Paused("type", None),  # type: ignore[arg-type]
        WebhookAdded((5,)),  # type: ignore[arg-type]
        WebhookAdded("JobCompleted"),  # type: ignore[arg-type]
    ],
)
def test_an_event_with_a_value_of_the_wrong_type_is_not_encoded(event: Event) -> None:
    with pytest.raises(InvalidInput, match="cannot be stored"):
        encode(event)


def test_a_handler_is_what_was_declared() -> None:
    handlers: list[Handler] = [echo, remote("far", max_attempts=2, timeout_s=5)]
    assert [(each.type, each.mode) for each in handlers] == [("echo", "loop"), ("far", "remote")]
    assert (handlers[1].max_attempts, dict(handlers[1].defaults)) == (2, {"timeout_s": 5.0})
