"""The listener: a few connections from this machine, each with its limits of time and size."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from eventjobs.clock import timeout
from eventjobs.concurrency import forks
from eventjobs.http.app_context import AppContext
from eventjobs.observability.logging import get_logger
from eventjobs.resp import protocol
from eventjobs.resp.commands import Session
from eventjobs.resp.protocol import CommandParser, ProtocolError

#: The only address to listen on: the protocol has no encryption.
HOST = "127.0.0.1"
CONNECTIONS_MAX = 64
#: Seconds that a connection may be without a command.
IDLE_S = 300.0
#: Seconds at a close in which commands that were begun are answered.
SHUTDOWN_S = 2.0
READ_BYTES = 4096


@dataclass(eq=False)
class _Connection:
    """An open connection. *is_idle* while it waits for bytes of a client."""

    task: "asyncio.Task[None]"
    writer: asyncio.StreamWriter
    is_idle: bool = False
    parser: CommandParser = field(default_factory=CommandParser)
    #: When the first byte of an incomplete command was received.
    began_s: float | None = None


class RespListening:
    """A listener on a bound port."""

    def __init__(self, context: AppContext, base_url: str) -> None:
        self._context = context
        self._base_url = base_url
        self._clock = context.service.clock
        self._settings = context.service.settings
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._closing = False

    async def open(self, port: int) -> None:
        """Listen on *port*; 0 selects a free one. Raises OSError."""
        server = await asyncio.start_server(self._accept, HOST, port, limit=READ_BYTES)
        for each in server.sockets:
            forks.close_in_children(each.fileno())
        self._server = server

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Accept no more connections, answer the commands that were begun, and close."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        tasks = {each.task for each in self._connections}
        for each in self._connections:
            if each.is_idle:
                each.task.cancel()
        if not tasks:
            return
        with contextlib.suppress(TimeoutError):
            async with timeout(self._clock, SHUTDOWN_S):
                await asyncio.wait(tasks)
        for each in list(self._connections):
            each.writer.transport.abort()
            each.task.cancel()
        await asyncio.wait(tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(task, writer)
        forks.close_in_children(writer.get_extra_info("socket").fileno())
        refused = len(self._connections) >= CONNECTIONS_MAX or self._closing
        self._connections.add(connection)
        try:
            if refused:
                writer.write(protocol.error("ERR max number of clients reached"))
            else:
                await self._serve(connection, reader)
            await self._finish(connection)
        except asyncio.CancelledError:  # the listener closes
            writer.close()
        except (ConnectionError, TimeoutError):
            writer.transport.abort()
        finally:
            self._connections.discard(connection)

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        """Reply to the commands until one side ends. Raises ConnectionError, TimeoutError."""
        peer = connection.writer.get_extra_info("peername")  # none of a client that has gone
        session = Session(self._context, self._base_url, peer[0] if peer else "")
        try:
            while not session.ended and not self._closing:
                command = connection.parser.next_command()
                if command is None:
                    data = await self._read(connection, reader, session)
                    if not data:
                        return
                    connection.parser.feed(data)
                elif command:
                    connection.began_s = None
                    async for part in session.execute(command):
                        connection.writer.write(part)
                        await self._drain(connection)
        except ProtocolError as error:
            connection.writer.write(protocol.error(f"ERR Protocol error: {error}"))

    async def _read(
        self, connection: _Connection, reader: asyncio.StreamReader, session: Session
    ) -> bytes:
        """The next bytes. Raises TimeoutError where a command, or a token, is not sent in time."""
        now_s = self._clock.monotonic_s()
        if not connection.parser.is_partial:
            connection.began_s = None
        elif connection.began_s is None:
            connection.began_s = now_s
        left_s = IDLE_S if session.is_authenticated else self._settings.head_timeout_s
        if connection.began_s is not None:
            left_s = max(0.0, connection.began_s + self._settings.head_timeout_s - now_s)
        connection.is_idle = True
        try:
            await asyncio.sleep(0)  # a client that always has more to say gets one turn of many
            async with timeout(self._clock, left_s):
                return await reader.read(READ_BYTES)
        finally:
            connection.is_idle = False

    async def _drain(self, connection: _Connection) -> None:
        """Wait while the client has much to read. Raises TimeoutError if it reads nothing."""
        async with timeout(self._clock, self._settings.stall_s):
            await connection.writer.drain()

    async def _finish(self, connection: _Connection) -> None:
        connection.writer.close()
        async with timeout(self._clock, self._settings.stall_s):
            await connection.writer.wait_closed()


async def listen(context: AppContext, port: int, base_url: str) -> RespListening:
    """Listen on *port* of 127.0.0.1; 0 selects a free one. Raises OSError.

    *base_url* is the address of the service over HTTP, for the links in jobs.
    """
    listening = RespListening(context, base_url)
    await listening.open(port)
    get_logger("eventjobs.resp").info("serving redis-cli", host=HOST, port=listening.port)
    return listening
