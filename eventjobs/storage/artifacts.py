"""Content-addressed files: uploads, files of handlers, results too large for an event.

A file is stored under its SHA-256, so no text of a client becomes a path. Reads are checked
against it.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import AsyncIterable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

from eventjobs.cache import LRUCache
from eventjobs.durability import make_directory, sync
from eventjobs.errors import ArtifactDamaged, DiskFull, TooLarge
from eventjobs.observability.logging import get_logger

_BLOCK_BYTES = 2**20
_READ_BYTES = 2**18
#: Files whose check is remembered.
_VERIFIED_MAX = 100_000


class Artifacts:
    """A directory of immutable files. The same content is stored once."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._verified_files: LRUCache[tuple[_Identity, bool]] = LRUCache(
            _VERIFIED_MAX, _VERIFIED_MAX
        )
        self._verified_lock = threading.Lock()

    def prepare(self) -> None:
        """Create the directory, and remove interrupted uploads. Blocks."""
        incoming = self._directory / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        make_directory(self._directory)
        with suppress(DiskFull), full_disk():  # the first upload creates it then
            incoming.mkdir(mode=0o700)

    def path(self, sha256: str) -> Path:
        """The path of the content, whether it exists or not."""
        return self._directory / sha256[:2] / sha256

    async def size(self, sha256: str) -> int | None:
        """The size in bytes, once the file is whole and durable; None if missing or damaged."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        return await asyncio.to_thread(self._size, sha256)

    def _size(self, sha256: str) -> int | None:
        try:
            with self.path(sha256).open("rb") as file:
                stat = os.fstat(file.fileno())
                if not self._is_whole(sha256, stat):
                    for _ in self._verified_blocks(file, sha256, stat.st_size, 0, 0):
                        pass
                    self._make_durable(file, sha256, stat)
                return stat.st_size
        except (FileNotFoundError, ArtifactDamaged):
            return None

    def read_blocks(
        self, sha256: str, size: int, begin: int = 0, end: int | None = None
    ) -> Generator[bytes]:
        """The content from *begin* to *end*, in blocks, some of them empty. Blocks.

        The last block is yielded after the whole file was checked. A part of a file that was
        checked before, and not written to since, is read alone. A file that was damaged before is
        checked before its first block.

        Raises ArtifactDamaged, FileNotFoundError.
        """
        end = size if end is None else end
        with self.path(sha256).open("rb") as file:
            stat = os.fstat(file.fileno())
            whole = self._is_whole(sha256, stat)
            if whole is False:
                for _ in self._verified_blocks(file, sha256, size, 0, 0):
                    yield b""
                file.seek(0)
            if whole and (begin, end) != (0, size):
                file.seek(begin)
                while block := file.read(min(_READ_BYTES, end - begin)):
                    begin += len(block)
                    yield block
                return
            yield from self._verified_blocks(file, sha256, size, begin, end)
            if not whole:
                with suppress(OSError):  # the content is right all the same
                    self._make_durable(file, sha256, stat)

    def _make_durable(self, file: BinaryIO, sha256: str, stat: os.stat_result) -> None:
        """Sync a whole file and its name, and remember that. Raises OSError.

        A file is visible once it is renamed. A process that was killed after that has not synced
        its name.
        """
        os.fsync(file.fileno())
        self._sync_names(self.path(sha256))
        self._remember(sha256, stat, whole=True)

    def checked_path(self, sha256: str, size: int) -> Path:
        """The path of the content, after all of it was checked. Raises ArtifactDamaged. Blocks."""
        try:
            for _ in self.read_blocks(sha256, size):
                pass
        except FileNotFoundError as error:
            raise ArtifactDamaged("the file is no longer kept") from error
        return self.path(sha256)

    def _verified_blocks(
        self, file: BinaryIO, sha256: str, size: int, begin: int, end: int
    ) -> Generator[bytes]:
        """As *read_blocks*, of the open *file*."""
        digest = hashlib.sha256()
        position = 0
        pending = b""  # the last part, yielded after the check
        try:
            while position <= size and (block := file.read(_READ_BYTES)):
                digest.update(block)
                part = block[max(begin - position, 0) : max(end - position, 0)]
                position += len(block)
                yield pending if part else b""
                pending = part or pending
        except OSError as error:
            raise self._damage_error(sha256, str(error)) from error
        if position != size or digest.hexdigest() != sha256:
            self._remember(sha256, os.fstat(file.fileno()), whole=False)
            actual = "others" if position == size else str(position)
            if position > size:
                actual = f"{position} or more"
            raise self._damage_error(sha256, f"of {size} bytes there are {actual}")
        yield pending

    def _damage_error(self, sha256: str, why: str) -> ArtifactDamaged:
        log = get_logger("eventjobs.artifacts")
        log.error("artifact damaged", path=str(self.path(sha256)), error=why)
        return ArtifactDamaged()

    def _is_whole(self, sha256: str, stat: os.stat_result) -> bool | None:
        """The result of the last check; None without one since the file was last written to."""
        with self._verified_lock:
            identity, whole = self._verified_files.get(sha256) or (None, None)
        return whole if identity == _Identity.of(stat) else None

    def _remember(self, sha256: str, stat: os.stat_result, *, whole: bool) -> None:
        """Remember that the file is whole and durable, or that it is damaged."""
        with self._verified_lock:
            self._verified_files.put(sha256, (_Identity.of(stat), whole), 1)

    def _sync_names(self, path: Path) -> None:
        for folder in (path.parent, self._directory):
            sync(folder)

    async def receive(self, chunks: AsyncIterable[bytes]) -> tuple[str, int]:
        """Store a stream; returns (sha256, bytes) once it is durable.

        Raises TooLarge, DiskFull. An error or a cancellation leaves nothing behind.
        """
        incoming = _Incoming(self._directory / "incoming", self._bytes_max)
        try:
            block = bytearray()
            async for chunk in chunks:
                block += chunk
                if len(block) >= _BLOCK_BYTES:
                    await asyncio.to_thread(incoming.write, bytes(block))
                    block.clear()
            await asyncio.to_thread(incoming.write, bytes(block))
            return await asyncio.to_thread(self._finish, incoming)
        finally:
            await asyncio.shield(asyncio.to_thread(incoming.discard))

    def store(self, content: bytes | Path) -> tuple[str, int]:
        """Store bytes or a copy of a file, as *receive* does. Blocks."""
        incoming = _Incoming(self._directory / "incoming", self._bytes_max)
        try:
            if isinstance(content, Path):
                with content.open("rb") as file:
                    while block := file.read(_BLOCK_BYTES):
                        incoming.write(block)
            else:
                incoming.write(content)
            return self._finish(incoming)
        finally:
            incoming.discard()

    def _finish(self, incoming: "_Incoming") -> tuple[str, int]:
        sha256 = incoming.sha256
        path = self.path(sha256)
        with incoming.whole() as file, full_disk():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            incoming.path.replace(path)
            self._sync_names(path)
            stat = os.fstat(file.fileno())
        self._remember(sha256, stat, whole=True)
        return sha256, stat.st_size


class _Identity(NamedTuple):
    """Changes when another file takes the name, or the file is written to."""

    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "_Identity":
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class _Incoming:
    """A file that is being written. It gets its name once it is whole and durable."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self.path = directory / uuid4().hex
        self._bytes_max = bytes_max
        self._hash = hashlib.sha256()
        self._size = 0
        self._file: BinaryIO | None = None
        # The thread of a cancelled upload continues: *discard* waits for it, and ends it.
        self._lock = threading.Lock()
        self._discarded = False

    def write(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._bytes_max:
            raise TooLarge(f"an artifact has at most {self._bytes_max} bytes")
        self._hash.update(block)
        with self._lock, full_disk():
            self._open_file().write(block)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @contextmanager
    def whole(self) -> Iterator[BinaryIO]:
        """The synced file. It may be renamed inside the block."""
        with self._lock:
            file = self._open_file()
            with full_disk():
                file.flush()
                os.fsync(file.fileno())
            yield file

    def discard(self) -> None:
        with self._lock:
            self._discarded = True
            if self._file is not None:
                with suppress(OSError):  # a full disk: closing flushes once more
                    self._file.close()
                self.path.unlink(missing_ok=True)

    def _open_file(self) -> BinaryIO:
        if self._discarded:
            raise asyncio.CancelledError
        if self._file is None:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
            self._file = os.fdopen(descriptor, "wb")
        return self._file


@contextmanager
def full_disk() -> Iterator[None]:
    """Raises DiskFull for the errors of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull from error
        raise
