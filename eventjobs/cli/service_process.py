"""The service as a process: what it says when it starts, and how signals end it."""

import asyncio
import errno
import signal
import sqlite3
from collections.abc import Coroutine
from typing import Any

from eventjobs import gc_tuning as garbage
from eventjobs.cli.process import Signals, loop_factory
from eventjobs.errors import DataDirectoryError, EventjobsError, InvalidInput
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.http import serve
from eventjobs.http.origin_guard import check_loopback
from eventjobs.http.server import Listening
from eventjobs.observability.log_capture import allow_level
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import trace
from eventjobs.service import Service
from eventjobs.settings import Settings


class AddressInUse(EventjobsError):
    """Another program listens there."""

    code = "address_in_use"


def run(settings: Settings, handlers: HandlerRegistry) -> None:
    """Serve until a signal says to stop. Raises InvalidInput, DataDirectoryError, AddressInUse."""
    check_loopback(settings.host)
    allow_level(settings.capture_logs)
    garbage.raise_gc_thresholds()
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


class _Process:
    """The service and its port, from start to stop."""

    def __init__(self, settings: Settings, handlers: HandlerRegistry) -> None:
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
            garbage.freeze_startup_objects()
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
