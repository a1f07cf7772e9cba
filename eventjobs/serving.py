"""The service as a process: what it says when it starts, and how signals end it."""

import asyncio
import errno
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import structlog

from eventjobs import garbage
from eventjobs.capture import let_through
from eventjobs.errors import DataDirectoryError, EventjobsError, InvalidInput
from eventjobs.handlers import Handler, Handlers
from eventjobs.http import serve
from eventjobs.http.listening import Listening, check_loopback
from eventjobs.schedules import Schedule
from eventjobs.service import Service
from eventjobs.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class AddressInUse(EventjobsError):
    """Another program listens there."""

    code = "address_in_use"


def load(names: Iterable[str], *, demo: bool = False) -> Handlers:
    """The handlers at each `module` or `module:name`. Raises InvalidInput."""
    sys.path.insert(0, str(Path.cwd()))
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
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_Process(settings, handlers).run())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return None
    return uvloop.new_event_loop


class _Process:
    """The first signal stops it, the second hurries it, the third is not caught."""

    def __init__(self, settings: Settings, handlers: Handlers) -> None:
        self._settings = settings
        self._service = Service(handlers=handlers, settings=settings)
        self._stop = asyncio.Event()
        self._running = False
        self._hurrying: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("eventjobs")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for each in SIGNALS:
            loop.add_signal_handler(each, self._signalled)
        if not await self._started():
            return
        try:
            listening = await self._listen()
            garbage.keep()
            self._tell(listening)
            await self._stop.wait()
            self._log.info("stopping")
            await listening.close()
        finally:
            await self._service.close()
        self._log.info("stopped")

    async def _started(self) -> bool:
        """Whether the service runs; not when it was told to stop before that."""
        starting = asyncio.create_task(self._service.start(), name="start")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
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
            data=str(self._settings.data.absolute()),
            types=sorted(self._service.handlers.types()),
            position=self._service.log.head,
        )
        print(listening.url, flush=True)

    def _signalled(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        self._log.info("hurrying")
        for each in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(each)
        if self._running:
            self._hurrying = asyncio.create_task(self._service.runner.stop(0.0), name="hurry")
