"""The process of `eventjobs serve`: start, listen, stop at a signal."""

import asyncio
import errno
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from eventjobs import gc_tuning
from eventjobs.cli.process import Signals, run_main, write_shutdown_lines
from eventjobs.errors import DataDirectoryError, EventjobsError, InvalidInput
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.http import serve
from eventjobs.http.origin_guard import check_host
from eventjobs.http.server import Listening
from eventjobs.observability.log_capture import allow_level
from eventjobs.observability.logging import get_logger
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.settings.formats import split_address

if TYPE_CHECKING:
    from eventjobs.resp.server import RespListening


class AddressInUse(EventjobsError, code="address_in_use"):
    """Another program listens on the port."""


def run_service(settings: Settings, handlers: HandlerRegistry) -> None:
    """Serve until the process gets a signal. Raises InvalidInput, DataDirectoryError,
    AddressInUse.
    """
    for host, _ in _addresses(settings):
        check_host(settings, host)
    allow_level(settings.capture_logs)
    write_shutdown_lines(settings)
    gc_tuning.raise_gc_thresholds()
    run_main(_Process(settings, handlers).run())


class _Process:
    """The service and its port, from start to stop."""

    def __init__(self, settings: Settings, handlers: HandlerRegistry) -> None:
        self._settings = settings
        self._service = Service(handlers=handlers, settings=settings)
        self._signals = Signals(self._hurry)
        self._running = False
        self._log = get_logger("eventjobs")

    async def run(self) -> None:
        self._signals.install()
        if not await self._start():
            return
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._service.close)
            listening = await self._listen()
            stack.push_async_callback(listening.close)
            if self._settings.redis_port is not None:
                redis = await self._listen_for_redis(listening, self._settings.redis_port)
                stack.push_async_callback(redis.close)
            gc_tuning.freeze_startup_objects()
            self._announce(listening)
            signal = await self._signals.wait_for_stop()
            self._log.info("stopping", signal=signal)
        self._log.info("stopped")

    async def _start(self) -> bool:
        """Start the service. False if a signal came before it was started."""
        starting = asyncio.create_task(self._service.start(), name="start")
        stopped = asyncio.create_task(self._signals.wait_for_stop(), name="stop")
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
        (host, port), *more = _addresses(self._settings)
        with _errors_with_address(host, port):
            listening = await serve(self._service, host, port)
        try:
            for host, port in more:
                with _errors_with_address(host, port):
                    await listening.add(host, port)
        except BaseException:
            await listening.close()
            raise
        return listening

    async def _listen_for_redis(self, listening: Listening, port: int) -> "RespListening":
        # Imported where it is used: without the setting it costs nothing.
        from eventjobs.resp import server

        base_url = self._settings.public_url or listening.url
        with _errors_with_address(server.HOST, port):
            return await server.listen(listening.context, port, base_url)

    def _announce(self, listening: Listening) -> None:
        self._log.info(
            "serving",
            data=str(self._service.settings.data),
            types=sorted(self._service.handlers.types()),
            position=self._service.log.head,
        )
        print(*listening.urls, sep="\n", flush=True)

    async def _hurry(self) -> None:
        self._log.info("hurrying")
        if self._running:
            await self._service.drain(0.0)


def _addresses(settings: Settings) -> list[tuple[str, int]]:
    """The host and the port of each address to listen on."""
    return [(settings.host, settings.port), *map(split_address, settings.listen)]


@contextmanager
def _errors_with_address(host: str, port: int) -> Iterator[None]:
    """Raise AddressInUse or InvalidInput, which name the address, in place of OSError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"another program listens on port {port} of {host}") from error
        raise InvalidInput(f"cannot listen on port {port} of {host}: {error}") from error
