"""Errors and results of handlers that misbehave when anything reads them."""

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from eventjobs.errors import InvalidInput, JobError
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise SystemExit("read")


refuse: Any = _refuse
unread: Any = property(_refuse)


#: The line of a SyntaxError is a number in Python's own.
NO_PLACE: Any = ("f", math.nan, "a", "b")


class Delegates(Exception):
    """As an error that hands attributes on to a response."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Unreadable(Exception):
    """Every property and every text of it ends the program."""

    __str__ = __repr__ = __bool__ = __iter__ = __len__ = __eq__ = refuse
    __hash__ = refuse
    __class__ = __cause__ = __context__ = __traceback__ = __notes__ = unread
    args = code = message = errors = unread


class UnreadableJobError(JobError):
    __str__ = __repr__ = refuse
    error_code = retryable = details = retry_after_s = unread
    __class__ = message = unread

    def __init__(self) -> None:
        pass


class UnreadableInput(InvalidInput):
    __str__ = refuse
    code = errors = message = unread


class WithoutSuper(JobError):
    def __init__(self, order: int) -> None:
        self.order = order


class Reduces(Exception):
    __reduce__ = __reduce_ex__ = __getstate__ = refuse


class Meta(type):
    __getattribute__ = refuse


class OddClass(Exception, metaclass=Meta):
    pass


class OddText(str):
    __slots__ = ()
    __getitem__ = encode = strip = __str__ = __len__ = refuse


class OddNumber:
    __float__ = __index__ = __int__ = __bool__ = refuse


def with_cause() -> BaseException:
    """Errors that are each other's cause."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def nest_groups(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("nested", [error])
    return error


def chain(count: int) -> BaseException:
    error: BaseException = ValueError(0)
    for number in range(count):
        following = ValueError(number)
        following.__context__ = error
        error = following
    return error


def with_notes() -> BaseException:
    error = ValueError("with notes")
    notes: list[Any] = [Reads(), "\ud800"]
    error.__notes__ = notes
    return error


def deep() -> BaseException:
    def down() -> None:
        down()

    try:
        down()
    except RecursionError as error:
        return error
    raise AssertionError


def job_error(code: Any = "odd", message: Any = "as it is", **more: Any) -> Callable[[], JobError]:
    return lambda: JobError(code, message, **more)


class Reads:
    """Nothing can be read of it."""

    __str__ = __repr__ = __bool__ = __iter__ = __len__ = __eq__ = refuse
    __hash__ = refuse
    __class__ = unread
    __getattr__ = refuse


class Dict(dict[Any, Any]):
    """Its methods are not those of a dict."""

    def values(self) -> Any:
        while True:
            yield 1

    items = keys = __iter__ = __len__ = refuse


class List(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield 1


def double(depth: int) -> Any:
    """2 ** depth lists that take hardly any memory."""
    value: Any = 1
    for _ in range(depth):
        value = [value, value]
    return value


def cycle() -> Any:
    value: Any = {}
    value["itself"] = [value, value]
    return value


async def coroutine() -> int:
    return 1


#: What is raised, made anew each time.
ERRORS: dict[str, Callable[[], BaseException]] = {
    "delegates": lambda: Delegates("x"),
    "unreadable": lambda: Unreadable("x"),
    "unreadable job error": UnreadableJobError,
    "unreadable input": lambda: UnreadableInput("x"),
    "without super": lambda: WithoutSuper(1),
    "reduces": lambda: Reduces("x"),
    "odd class": lambda: OddClass("x"),
    "syntax": lambda: SyntaxError("x", NO_PLACE),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "\ud800\0"),
    "causes of each other": with_cause,
    "nested group": lambda: nest_groups(900),
    "wide group": lambda: ExceptionGroup("wide", [ValueError(n) for n in range(20_000)]),
    "group of odd ones": lambda: BaseExceptionGroup("odd", [Unreadable("x"), SystemExit(1)]),
    "long chain": lambda: chain(20_000),
    "args without end": lambda: ValueError(double(60)),
    "message without end": job_error(code=double(60), message=[double(60)]),
    "notes": with_notes,
    "recursion": deep,
    "memory": MemoryError,
    "exit": lambda: SystemExit(Reads()),
    "interrupt": KeyboardInterrupt,
    "generator exit": GeneratorExit,
    "stop iteration": lambda: StopIteration(Reads()),
    "stop async iteration": StopAsyncIteration,
    "cancelled": asyncio.CancelledError,
    "stopped": Stopped,
    "base": lambda: BaseException("\ud800\0" * 9_000),
    "no args": lambda: JobError.__new__(JobError),
    "code": job_error(code=Reads(), message=Reads()),
    "no code": job_error(code=None, message=None),
    "long code": job_error(code="c" * 9_000, message="m" * 9_000_000),
    "odd text": job_error(code=OddText("c"), message=OddText("m")),
    "surrogates": job_error(code="\ud800", message="\udcff\0"),
    "retryable": job_error(retryable=Reads()),
    "retryable text": job_error(retryable="no", retry_after_s=math.inf),
    "delay nan": job_error(retry_after_s=math.nan),
    "delay negative": job_error(retry_after_s=-5),
    "delay text": job_error(retry_after_s="soon"),
    "delay number as text": job_error(retry_after_s="0"),
    "delay huge": job_error(retry_after_s=10**400),
    "delay large": job_error(retry_after_s=1e300),
    "delay bool": job_error(retry_after_s=True),
    "delay odd": job_error(retry_after_s=OddNumber()),
    "details": job_error(details=Reads()),
    "details in details": job_error(details={"a": [Reads(), {1, 2}], Reads: 1}),
    "details cycle": job_error(details=cycle()),
    "details doubled": job_error(details=double(60)),
    "details large": job_error(details={"text": "x" * 30_000_000}),
}

#: What is returned, made anew each time.
RESULTS: dict[str, Callable[[], Any]] = {
    "reads": Reads,
    "dict": lambda: Dict(a=1),
    "list": lambda: List([1]),
    "cycle": cycle,
    "doubled": lambda: double(60),
    "deep": lambda: deep_list(100_000),
    "nan": lambda: [math.nan],
    "huge int": lambda: 2**70,
    "set": lambda: {1},
    "bytes": lambda: b"x",
    "key": lambda: {Reads: 1},
    "surrogate": lambda: "\ud800",
    "generator": lambda: iter([]),
    "coroutine": coroutine,
    "error": lambda: Unreadable("x"),
    "class": lambda: OddClass,
    "large": lambda: ["x" * 1_000_000] * 1_000,
}

#: What costs time; it is for one test alone.
SLOW = {"doubled", "large", "wide group", "long chain", "details large"}


def deep_list(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@handler("raises", process=True, max_attempts=1)
def raises_in_a_process(context: ThreadContext, payload: str) -> None:
    raise ERRORS[payload]()


@handler("returns", process=True, max_attempts=1)
def returns_in_a_process(context: ThreadContext, payload: str) -> Any:
    return RESULTS[payload]()
