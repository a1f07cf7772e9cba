"""What handlers may do, once for all modes: a case yields each call and gets its value."""

import inspect
from collections.abc import Callable, Generator
from typing import Any

from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext

Case = Generator[Callable[[], Any], Any, Any]


def deep(levels: int) -> Any:
    value: Any = "at the bottom"
    for _ in range(levels):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "numbers": lambda: [2**53, 2**63, -(2**63), 1e300, 0.1, -0.0, True],
    "unicode": lambda: "ü€😀\u2028\0" * 9_000,
    "20,000 items": lambda: list(range(20_000)),
    "15,000 keys": lambda: {f"key {number}": None for number in range(15_000)},
    "109 kB": lambda: "x" * 109_000,
    "199 levels": lambda: deep(199),
    "too deep": lambda: deep(260),
    "not a number": lambda: [float("nan")],
    "not JSON": lambda: {1, 2},
    "300 kB": lambda: "y" * 300_000,
    "700,000 characters": lambda: "€" * 700_000,
    "5 MB": lambda: [{"row": number, "text": "z" * 90} for number in range(45_000)],
}


def result(ctx: Any, value: Any) -> Case:
    yield lambda: ctx.progress(1, 2)
    return value


def step(ctx: Any, value: Any) -> Case:
    return (yield lambda: ctx.step("a step", lambda: value))


def child_payload(ctx: Any, value: Any) -> Case:
    child = yield lambda: ctx.submit("child", {"payload": value}, max_attempts=1)
    return (yield lambda: ctx.result(child))


def child_result(ctx: Any, value: Any) -> Case:
    name = next(each for each, make in VALUES.items() if repr(make()) == repr(value))
    child = yield lambda: ctx.submit("child", {"value": name}, max_attempts=1)
    received = yield lambda: ctx.result(child)
    return [received == value, type(received).__name__]


def data(ctx: Any, value: Any) -> Case:
    yield lambda: ctx.progress(1, 3, stage="s" * 300, message="m€" * 5_000, data=value)


def lines(ctx: Any, value: Any) -> Case:
    for number in range(3):
        yield lambda number=number: ctx.log(f"line {number} " + "€" * 5_000, fields=value)  # type: ignore[misc]


def issues(ctx: Any, value: Any) -> Case:
    for number in range(110):
        yield lambda number=number: ctx.issue(f"code {number}", "m" * 5_000, more="d" * 7_000)  # type: ignore[misc]
    yield lambda: ctx.issue("last", "issue", more=value)
    return value


def error(ctx: Any, value: Any) -> Case:
    yield lambda: None
    raise JobError("c" * 300, "m€" * 5_000, retryable=False, details=value)


def artifact(ctx: Any, value: Any) -> Case:
    yield lambda: ctx.artifact("file.txt", repr(value).encode(), "text/plain")
    yield lambda: ctx.artifact("result.json", b"mine", "application/json")
    return value


KINDS = {
    each.__name__: each
    for each in (
        *(result, step, child_payload, child_result),
        *(data, lines, issues, error, artifact),
    )
}


async def drive(ctx: Any, payload: dict[str, str]) -> Any:
    """Make the calls of a case, and await the awaitable ones of a handler on the loop."""
    case, value = KINDS[payload["kind"]](ctx, VALUES[payload["value"]]()), None
    while True:
        try:
            call = case.send(value)
        except StopIteration as end:
            return end.value
        value = call()
        if inspect.isawaitable(value):
            value = await value


def behave(ctx: ThreadContext, payload: dict[str, str]) -> Any:
    try:
        drive(ctx, payload).send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a call of a plain handler was awaitable")


async def behave_on_the_loop(ctx: Context, payload: dict[str, str]) -> Any:
    return await drive(ctx, payload)


@handler("child")
async def child(ctx: Context, payload: dict[str, Any]) -> Any:
    return VALUES[payload["value"]]() if "value" in payload else len(repr(payload))
