"""Files kept by their content: uploads, what handlers make, results too large for an event.

A file's only name here is its SHA-256, so nothing a client says ever becomes a path.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from eventjobs.errors import DiskFull, InvalidInput, TooLarge

#: What a client may call a file of a job: kept in the log, never used as a path.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ ()+-]{0,127}")

_BLOCK_BYTES = 2**20


def check_name(name: str) -> str:
    """Raises InvalidInput for what cannot be a file name of a job."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            "an artifact's name is 1 to 128 of the characters A-Z a-z 0-9 . _ - + ( ) and space,"
            " beginning with a letter or digit"
        )
    return name


class Files(Protocol):
    """The files of jobs, on this machine. Both block, and are called in threads."""

    def path(self, sha256: str) -> Path: ...
    def store(self, content: bytes | Path) -> tuple[str, int]: ...


class Artifacts:
    """A directory of immutable files. Storing the same content twice keeps it once."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max

    def prepare(self) -> None:
        """Make the directory, and clear what an interrupted upload left. Blocks."""
        shutil.rmtree(self._directory / "incoming", ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / "incoming").mkdir(mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where the content is, if it is here."""
        return self._directory / sha256[:2] / sha256

    async def size(self, sha256: str) -> int | None:
        """Its bytes, or None when it is not here."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        try:
            return (await asyncio.to_thread(os.stat, self.path(sha256))).st_size
        except FileNotFoundError:
            return None

    async def receive(self, chunks: AsyncIterable[bytes]) -> tuple[str, int]:
        """Store a stream; (sha256, bytes) once it is durable.

        Raises TooLarge, DiskFull. What came before an error or a cancellation is removed.
        """
        incoming = _Incoming(self._directory, self._bytes_max)
        try:
            block = bytearray()
            async for chunk in chunks:
                block += chunk
                if len(block) >= _BLOCK_BYTES:
                    await asyncio.to_thread(incoming.write, bytes(block))
                    block.clear()
            await asyncio.to_thread(incoming.write, bytes(block))
            return await asyncio.to_thread(incoming.keep)
        finally:
            await asyncio.shield(asyncio.to_thread(incoming.discard))

    def store(self, content: bytes | Path) -> tuple[str, int]:
        """The same for what is here already. Blocks."""
        incoming = _Incoming(self._directory, self._bytes_max)
        try:
            if isinstance(content, Path):
                with content.open("rb") as file:
                    while block := file.read(_BLOCK_BYTES):
                        incoming.write(block)
            else:
                incoming.write(content)
            return incoming.keep()
        finally:
            incoming.discard()


class _Incoming:
    """A file that is being written: invisible until it is whole and on disk."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self._path = directory / "incoming" / uuid4().hex
        self._bytes_max = bytes_max
        self._hash = hashlib.sha256()
        self._size = 0
        self._file: BinaryIO | None = None
        # The thread of a cancelled upload goes on: discarding waits for it, and ends it.
        self._lock = threading.Lock()
        self._discarded = False

    def write(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._bytes_max:
            raise TooLarge(f"an artifact has at most {self._bytes_max} bytes")
        self._hash.update(block)
        with self._lock, _full_disk():
            self._opened().write(block)

    def keep(self) -> tuple[str, int]:
        sha256 = self._hash.hexdigest()
        target = self._directory / sha256[:2] / sha256
        with self._lock, _full_disk():
            file = self._opened()
            file.flush()
            os.fsync(file.fileno())
            target.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.replace(target)
            for folder in (target.parent, self._directory):
                _sync_directory(folder)
        return sha256, self._size

    def discard(self) -> None:
        with self._lock:
            self._discarded = True
            if self._file is not None:
                with suppress(OSError):  # a full disk, met again by what was not flushed
                    self._file.close()
                self._path.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._discarded:
            raise asyncio.CancelledError
        if self._file is None:
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600)
            self._file = os.fdopen(descriptor, "wb")
        return self._file


def _sync_directory(directory: Path) -> None:
    """A rename is durable once its directory is."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull from error
        raise
