"""The service as a process: what it says when it starts, and how signals end it."""

import asyncio
import errno
import signal
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Iterable
from importlib import import_module
from typing import Any

from eventjobs import garbage
from eventjobs.capture import let_through
from eventjobs.environment import working_directory
from eventjobs.errors import DataDirectoryError, EventjobsError, InvalidInput
from eventjobs.handlers import Handler, Handlers
from eventjobs.http import serve
from eventjobs.http.listening import Listening, check_loopback
from eventjobs.logs import get_logger
from eventjobs.schedules import Schedule
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.tracebacks import trace

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class AddressInUse(EventjobsError):
    """Another program listens there."""

    code = "address_in_use"


def load(names: Iterable[str], *, demo: bool = False) -> Handlers:
    """The handlers at each `module` or `module:name`. Raises InvalidInput."""
    if (directory := working_directory()) is not None:
        sys.path.insert(0, str(directory))
    found = [each for name in names for each in _handlers_at(name)]
    if demo:
        found += _handlers_at("eventjobs.demo:HANDLERS")
    try:
        return Handlers(found)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _handlers_at(name: str) -> list[Handler | Schedule]:
    module, _, attribute = name.partition(":")
    try:
        holder: object = import_module(module)
        for each in filter(None, attribute.split(".")):
            holder = getattr(holder, each)
        handlers = Handlers.of(holder)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: {error}") from error
    if not (found := [*handlers, *handlers.schedules]):
        raise InvalidInput(f"{name} has no handlers")
    return found


def run(settings: Settings, handlers: Handlers) -> None:
    """Serve until a signal says to stop. Raises InvalidInput, DataDirectoryError, AddressInUse."""
    check_loopback(settings.host)
    let_through(settings.capture_logs)
    garbage.look_seldom()
    run_main(_Process(settings, handlers).run())


def run_main(main: Coroutine[Any, Any, None]) -> None:
    """Run the main coroutine of a command, which catches Signals, on a loop of its own.

    asyncio lets sys.exit() in a callback that a handler has set out of the loop, and a handler may
    stop the loop. It goes on.
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
                # A Ctrl-C is an exception only while no handler is set for its signal.
                if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    raise
                log = get_logger("eventjobs")
                log.error("a callback tried to end the program", exception=trace(error))


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


class _Process:
    """The service and its port, from start to stop."""

    def __init__(self, settings: Settings, handlers: Handlers) -> None:
        self._settings = settings
        self._service = Service(handlers=handlers, settings=settings)
        self._signals = Signals(self._hurry)
        self._running = False
        self._log = get_logger("eventjobs")

    async def run(self) -> None:
        self._signals.catch()
        if not await self._started():
            return
        try:
            listening = await self._listen()
            garbage.keep()
            self._tell(listening)
            await self._signals.asked()
            self._log.info("stopping")
            await listening.close()
        finally:
            await self._service.close()
        self._log.info("stopped")

    async def _started(self) -> bool:
        """Whether the service runs; not when it was told to stop before that."""
        starting = asyncio.create_task(self._service.start(), name="start")
        stopped = asyncio.create_task(self._signals.asked(), name="stop")
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            await starting
        except asyncio.CancelledError:
            return False
        except (OSError, sqlite3.Error) as error:
            raise DataDirectoryError(f"{self._settings.data} cannot be used: {error}") from error
        finally:
            stopped.cancel()
        self._running = True
        return True

    async def _listen(self) -> Listening:
        host, port = self._settings.host, self._settings.port
        try:
            return await serve(self._service, host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(f"another program listens on port {port} of {host}") from error
            raise InvalidInput(f"cannot listen on port {port} of {host}: {error}") from error

    def _tell(self, listening: Listening) -> None:
        self._log.info(
            "serving",
            data=str(self._service.settings.data),
            types=sorted(self._service.handlers.types()),
            position=self._service.log.head,
        )
        print(listening.url, flush=True)

    async def _hurry(self) -> None:
        self._log.info("hurrying")
        if self._running:
            await self._service.drain(0.0)
