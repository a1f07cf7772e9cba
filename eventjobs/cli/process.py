"""What long-running commands have in common: handlers to load, the event loop, signals."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from importlib import import_module
from typing import Any

from eventjobs.errors import InvalidInput
from eventjobs.handlers.registry import Handler, HandlerRegistry
from eventjobs.handlers.schedule import CronSchedule
from eventjobs.settings import working_directory

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def load(names: Iterable[str], *, demo: bool = False) -> HandlerRegistry:
    """The handlers at each `module` or `module:name`. Raises InvalidInput."""
    if (directory := working_directory()) is not None:
        sys.path.insert(0, str(directory))
    found = [each for name in names for each in _handlers_at(name)]
    if demo:
        found += _handlers_at("eventjobs.demo:HANDLERS")
    try:
        return HandlerRegistry(found)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _handlers_at(name: str) -> list[Handler | CronSchedule]:
    module, _, attribute = name.partition(":")
    try:
        holder: object = import_module(module)
        for each in filter(None, attribute.split(".")):
            holder = getattr(holder, each)
        handlers = HandlerRegistry.of(holder)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: {error}") from error
    if not (found := [*handlers, *handlers.schedules]):
        raise InvalidInput(f"{name} has no handlers")
    return found


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return None
    return uvloop.new_event_loop


class Signals:
    """The first one asks to stop, the second to *hurry*, the third is not caught."""

    def __init__(self, hurry: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._hurry = hurry
        self._asked = asyncio.Event()
        self._hurrying: asyncio.Task[None] | None = None

    def catch(self) -> None:
        for each in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(each, self._caught)

    async def asked(self) -> None:
        """Return when a stop is asked for."""
        await self._asked.wait()

    def _caught(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            return
        for each in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(each)
        self._hurrying = asyncio.create_task(self._hurry(), name="hurry")
