"""A reader may be slow for as long as it reads."""

import asyncio
import socket
from contextlib import closing
from pathlib import Path

from tests.support.clock import FakeClock
from tests.support.stream_reader import request
from tests.support.stream_site import EVENTS, open_site


async def test_a_reader_is_dropped_when_it_reads_nothing_and_not_when_it_is_slow(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with open_site(tmp_path, clock, stall_s=60.0, stream_buffer_bytes_max=2048) as site:
        await site.submit(payload="x" * 4_000_000)
        connection = socket.socket()
        # The kernel holds little of the stream for the reader.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        connection.connect(("127.0.0.1", site.port))
        reader, writer = await asyncio.open_connection(sock=connection)
        with closing(writer):
            writer.write(request(EVENTS))
            for _ in range(5):
                await clock.advance(50.0)
                await reader.readexactly(400_000)
            assert len(site.streams) == 1
            await clock.advance(120.0)
            assert len(site.streams) == 0
