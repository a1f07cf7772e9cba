"""What long-running commands share: loading handlers, the event loop, signals."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from importlib import import_module
from typing import Any

from eventjobs.errors import InvalidInput
from eventjobs.handlers.registry import HandlerRegistry, Part
from eventjobs.observability.logging import OURS, get_logger
from eventjobs.observability.tracebacks import trace
from eventjobs.settings import Settings, working_directory

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def load_handlers(names: Iterable[str], *, demo: bool = False) -> HandlerRegistry:
    """The handlers and schedules at each `module` or `module:name`. Raises InvalidInput."""
    if (directory := working_directory()) is not None:
        sys.path.insert(0, str(directory))
    handlers = [each for name in names for each in _handlers_at(name)]
    if demo:
        handlers += _handlers_at("eventjobs.demo:HANDLERS")
    try:
        return HandlerRegistry(handlers)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _handlers_at(name: str) -> list[Part]:
    module, _, attribute = name.partition(":")
    try:
        holder: object = import_module(module)
        for each in filter(None, attribute.split(".")):
            holder = getattr(holder, each)
        registry = HandlerRegistry.of(holder)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: {error}") from error
    if not registry.parts:
        raise InvalidInput(f"{name} has no handlers")
    return registry.parts


def write_shutdown_lines(settings: Settings) -> None:
    """Write the log lines of a shutdown as dialect 004 has them, if *settings* select them.

    Raises InvalidInput for a dialect without log lines.
    """
    if not settings.dialect_logs:
        return
    # Imported where it is used: a worker needs nothing else of the HTTP service.
    from eventjobs.http.dialects.registry import select_dialect_logs
    from eventjobs.http.dialects.seed_004_log import ShutdownLines

    if "004" in select_dialect_logs(settings.dialect_logs):
        logging.getLogger(OURS).addHandler(ShutdownLines())


def run_main(main: Coroutine[Any, Any, None]) -> None:
    """Run the main coroutine of a command, which installs Signals, on an event loop of its own.

    A handler's callback may call sys.exit(), or stop the loop: both end run_until_complete in
    asyncio. The error is logged, and the loop runs again.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main, name="main")
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                if task.done() or loop.is_closed():
                    raise
                # A Ctrl-C is an exception only while no handler is installed for its signal.
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    raise
                log = get_logger("eventjobs")
                log.error("a callback tried to end the program", exception=trace(error))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop; None on a platform without uvloop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Signals:
    """The first SIGTERM or SIGINT asks to stop, the second calls *hurry*, the third ends the
    process.
    """

    def __init__(self, hurry: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._hurry = hurry
        self._stop = asyncio.Event()
        self._first = 0
        self._hurrying: asyncio.Task[None] | None = None

    def install(self) -> None:
        for each in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(each, self._on_signal, each)

    async def wait_for_stop(self) -> int:
        """The number of the first signal, once the process has it."""
        await self._stop.wait()
        return int(self._first)

    def _on_signal(self, number: int) -> None:
        if not self._stop.is_set():
            self._first = number
            self._stop.set()
            return
        for each in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(each)
        self._hurrying = asyncio.create_task(self._hurry(), name="hurry")
