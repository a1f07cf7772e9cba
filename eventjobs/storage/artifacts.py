"""Files kept by their content: uploads, what handlers make, results too large for an event.

A file's only name here is its SHA-256, so nothing a client says ever becomes a path. What is read
is checked against it.
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
#: Of files that need not be read again to be known as whole.
_KNOWN_MAX = 100_000


class Artifacts:
    """A directory of immutable files. Storing the same content twice keeps it once."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._known: LRUCache[tuple[_Identity, bool]] = LRUCache(_KNOWN_MAX, _KNOWN_MAX)
        self._knowing = threading.Lock()

    def prepare(self) -> None:
        """Make the directory, and clear what an interrupted upload left. Blocks."""
        incoming = self._directory / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        make_directory(self._directory)
        with suppress(DiskFull), _full_disk():  # then the first upload makes it
            incoming.mkdir(mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where the content is, if it is here."""
        return self._directory / sha256[:2] / sha256

    async def size(self, sha256: str) -> int | None:
        """Its bytes, once the file is whole and durable; None when it is not here, or damaged."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        return await asyncio.to_thread(self._size, sha256)

    def _size(self, sha256: str) -> int | None:
        try:
            with self.path(sha256).open("rb") as file:
                found = os.fstat(file.fileno())
                if not self._is_whole(sha256, found):
                    for _ in self._verified(file, sha256, found.st_size, 0, 0):
                        pass
                    self._make_durable(file, sha256, found)
                return found.st_size
        except (FileNotFoundError, ArtifactDamaged):
            return None

    def read_blocks(
        self, sha256: str, size: int, begin: int = 0, end: int | None = None
    ) -> Generator[bytes]:
        """The content from *begin* to *end*, in blocks, some of them empty. Blocks.

        The last one comes when the whole file was found to be what was stored. A part of a file
        that was whole before, and was not written to since, is read by itself; one that was
        damaged is checked before its first block.

        Raises ArtifactDamaged, FileNotFoundError.
        """
        end = size if end is None else end
        with self.path(sha256).open("rb") as file:
            found = os.fstat(file.fileno())
            whole = self._is_whole(sha256, found)
            if whole is False:
                for _ in self._verified(file, sha256, size, 0, 0):
                    yield b""
                file.seek(0)
            if whole and (begin, end) != (0, size):
                file.seek(begin)
                while block := file.read(min(_READ_BYTES, end - begin)):
                    begin += len(block)
                    yield block
                return
            yield from self._verified(file, sha256, size, begin, end)
            if not whole:
                with suppress(OSError):  # what was read is right all the same
                    self._make_durable(file, sha256, found)

    def _make_durable(self, file: BinaryIO, sha256: str, found: os.stat_result) -> None:
        """From now on the file, which was *found* whole, is known to be on the disk, too.

        Raises OSError. It can be seen as soon as it is renamed: before its name is on the disk, or
        while it never will be, where a process was killed in between.
        """
        os.fsync(file.fileno())
        self._sync_names(self.path(sha256))
        self._know(sha256, found, whole=True)

    def checked_path(self, sha256: str, size: int) -> Path:
        """Where the content is, read to its end once. Raises ArtifactDamaged. Blocks."""
        try:
            for _ in self.read_blocks(sha256, size):
                pass
        except FileNotFoundError as error:
            raise ArtifactDamaged("the file is no longer kept") from error
        return self.path(sha256)

    def _verified(
        self, file: BinaryIO, sha256: str, size: int, begin: int, end: int
    ) -> Generator[bytes]:
        """As *blocks*, of the open *file*."""
        read = hashlib.sha256()
        at = 0
        held = b""
        try:
            while at <= size and (block := file.read(_READ_BYTES)):
                read.update(block)
                part = block[max(begin - at, 0) : max(end - at, 0)]
                at += len(block)
                yield held if part else b""
                held = part or held
        except OSError as error:
            raise self._damaged(sha256, str(error)) from error
        if at != size or read.hexdigest() != sha256:
            self._know(sha256, os.fstat(file.fileno()), whole=False)
            found = "others" if at == size else f"{at} or more" if at > size else str(at)
            raise self._damaged(sha256, f"of {size} bytes there are {found}")
        yield held

    def _damaged(self, sha256: str, why: str) -> ArtifactDamaged:

        log = get_logger("eventjobs.artifacts")
        log.error("artifact damaged", path=str(self.path(sha256)), error=why)
        return ArtifactDamaged()

    def _is_whole(self, sha256: str, found: os.stat_result) -> bool | None:
        """What is known of this very file, if it was not written to since."""
        with self._knowing:
            identity, whole = self._known.get(sha256) or (None, None)
        return whole if identity == _Identity.of(found) else None

    def _know(self, sha256: str, found: os.stat_result, *, whole: bool) -> None:
        """It is what it should be, and on the disk; or it is damaged."""
        with self._knowing:
            self._known.put(sha256, (_Identity.of(found), whole), 1)

    def _sync_names(self, path: Path) -> None:
        for folder in (path.parent, self._directory):
            sync(folder)

    async def receive(self, chunks: AsyncIterable[bytes]) -> tuple[str, int]:
        """Store a stream; (sha256, bytes) once it is durable.

        Raises TooLarge, DiskFull. What came before an error or a cancellation is removed.
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
            return await asyncio.to_thread(self._keep, incoming)
        finally:
            await asyncio.shield(asyncio.to_thread(incoming.discard))

    def store(self, content: bytes | Path) -> tuple[str, int]:
        """The same for what is here already. Blocks."""
        incoming = _Incoming(self._directory / "incoming", self._bytes_max)
        try:
            if isinstance(content, Path):
                with content.open("rb") as file:
                    while block := file.read(_BLOCK_BYTES):
                        incoming.write(block)
            else:
                incoming.write(content)
            return self._keep(incoming)
        finally:
            incoming.discard()

    def _keep(self, incoming: "_Incoming") -> tuple[str, int]:
        sha256 = incoming.sha256
        path = self.path(sha256)
        with incoming.whole() as file, _full_disk():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            incoming.path.replace(path)
            self._sync_names(path)
            found = os.fstat(file.fileno())
        self._know(sha256, found, whole=True)
        return sha256, found.st_size


class _Identity(NamedTuple):
    """Changes whenever another file takes the name, or somebody writes to this one."""

    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> "_Identity":
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _Incoming:
    """A file that is being written: invisible until it is whole and on disk."""

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self.path = directory / uuid4().hex
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

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @contextmanager
    def whole(self) -> Iterator[BinaryIO]:
        """The file, all of it on the disk, while it may be given its name."""
        with self._lock:
            file = self._opened()
            with _full_disk():
                file.flush()
                os.fsync(file.fileno())
            yield file

    def discard(self) -> None:
        with self._lock:
            self._discarded = True
            if self._file is not None:
                with suppress(OSError):  # a full disk, met again by what was not flushed
                    self._file.close()
                self.path.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._discarded:
            raise asyncio.CancelledError
        if self._file is None:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
            self._file = os.fdopen(descriptor, "wb")
        return self._file


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull from error
        raise
