"""Tasks that handlers create: sys.exit() in one of them ends the job, not the service.

asyncio lets SystemExit and KeyboardInterrupt leave a task and the event loop. A sys.exit() in a
task that a handler awaits would end the program that runs the service.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_Factory = Callable[..., asyncio.Future[Any]]

_IN_HANDLER: ContextVar[bool] = ContextVar("eventjobs_in_handler", default=False)


class TaskExit(BaseException):
    """Replaces SystemExit or KeyboardInterrupt, its cause, in a task of a handler."""


@contextmanager
def in_handler() -> Iterator[None]:
    """Tasks created in the body, and in their own tasks and threads, raise TaskExit."""
    token = _IN_HANDLER.set(True)
    try:
        yield
    finally:
        _IN_HANDLER.reset(token)


class TaskFactory:
    """The task factory of a loop that runs handlers. It wraps the factory that was set before.

    It counts its users: several services may run on one loop.
    """

    def __init__(self, before: _Factory | None) -> None:
        self._before = before
        self._users = 0

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        context = options.get("context")
        inside = _IN_HANDLER.get() if context is None else context.get(_IN_HANDLER, False)
        if inside and asyncio.iscoroutine(coroutine):
            coroutine = _ExitContained(coroutine)
        if self._before is not None:
            return self._before(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)

    @classmethod
    def add_user(cls, loop: asyncio.AbstractEventLoop) -> "TaskFactory":
        """The TaskFactory of *loop*, with one more user."""
        factory = loop.get_task_factory()
        if not isinstance(factory, cls):
            factory = cls(factory)
            loop.set_task_factory(factory)
        factory._users += 1
        return factory

    def remove_user(self, loop: asyncio.AbstractEventLoop) -> None:
        """Remove a user. After the last one the loop has its former factory again."""
        self._users -= 1
        # The program may have set another factory since.
        if self._users == 0 and loop.get_task_factory() is self:
            loop.set_task_factory(self._before)


class _ExitContained(Coroutine[Any, Any, Any]):
    """Wraps a coroutine and replaces SystemExit and KeyboardInterrupt by TaskExit."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise TaskExit(type(error).__name__) from error

    def throw(self, *error: Any) -> Any:
        try:
            return self._inner.throw(*error)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise TaskExit(type(raised).__name__) from raised

    def close(self) -> None:
        self._inner.close()
