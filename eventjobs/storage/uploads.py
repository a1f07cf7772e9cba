"""Uploaded files and their owners: who has uploaded which file, and how many bytes in all.

Only the owner of a file may name it, so its hash gives no other owner access to it. The record is
an empty file for each owner and content, synced as the content is.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from eventjobs.durability import make_directory, sync
from eventjobs.errors import OwnerBytesLimit
from eventjobs.storage.artifacts import Artifacts, full_disk


@dataclass(slots=True)
class _Usage:
    """Bytes of one owner: in stored files, and in uploads that have not ended."""

    stored: int
    incoming: int = 0


class Uploads:
    """The uploads of all owners. Each may have *bytes_max* bytes; None is no limit."""

    def __init__(self, directory: Path, artifacts: Artifacts, bytes_max: int | None) -> None:
        self._directory = directory
        self._artifacts = artifacts
        self._bytes_max = bytes_max
        self._usages: dict[str, _Usage] = {}
        self._loading = asyncio.Lock()

    async def receive(
        self, owner: str | None, chunks: AsyncIterable[bytes], announced: int = 0
    ) -> tuple[str, int]:
        """Store a stream of *announced* bytes, if that is known, as an upload of *owner*.

        Returns (sha256, bytes) once it is durable. A file that the owner has uploaded before is
        counted once, but twice until it has arrived. Raises OwnerBytesLimit before anything is
        stored beyond the limit, and as Artifacts.receive does.
        """
        if owner is None:
            return await self._artifacts.receive(chunks)
        if self._bytes_max is None:
            sha256, size = await self._artifacts.receive(chunks)
            await asyncio.to_thread(self._record, owner, sha256)
            return sha256, size
        usage = await self._usage(owner)
        with self._reservation(usage, announced) as reservation:
            sha256, size = await self._artifacts.receive(reservation.cover(chunks))
            if await asyncio.to_thread(self._record, owner, sha256):
                usage.stored += size
        return sha256, size

    async def has(self, owner: str, sha256: str) -> bool:
        """Whether *owner* has uploaded this file."""
        return await asyncio.to_thread(self._path(owner, sha256).exists)

    def _path(self, owner: str, sha256: str) -> Path:
        # No text of a client becomes a path.
        return self._directory / hashlib.sha256(owner.encode()).hexdigest() / sha256

    def _record(self, owner: str, sha256: str) -> bool:
        """Record the upload, durably. Whether it is a new one. Blocks."""
        path = self._path(owner, sha256)
        with full_disk():
            make_directory(path.parent)
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                is_new = True
            except FileExistsError:  # of a process, perhaps, that was killed before the sync
                is_new = False
            sync(path)
            sync(path.parent)
        return is_new

    async def _usage(self, owner: str) -> _Usage:
        if owner not in self._usages:
            async with self._loading:
                if owner not in self._usages:
                    stored = await asyncio.to_thread(self._stored_bytes, owner)
                    self._usages[owner] = _Usage(stored)
        return self._usages[owner]

    def _stored_bytes(self, owner: str) -> int:
        """The bytes of the files of *owner* that are still stored. Blocks."""
        size = 0
        with suppress(FileNotFoundError):  # nothing was uploaded
            for each in os.scandir(self._path(owner, "")):
                with suppress(FileNotFoundError):
                    size += self._artifacts.path(each.name).stat().st_size
        return size

    @contextmanager
    def _reservation(self, usage: _Usage, announced: int) -> Iterator["_Reservation"]:
        """A reservation of *announced* bytes until the upload has ended. Raises OwnerBytesLimit."""
        assert self._bytes_max is not None
        reservation = _Reservation(usage, self._bytes_max)
        try:
            reservation.extend(announced)
            yield reservation
        finally:
            reservation.release()


class _Reservation:
    """The bytes that are reserved for one upload."""

    def __init__(self, usage: _Usage, bytes_max: int) -> None:
        self._usage = usage
        self._bytes_max = bytes_max
        self._size = 0

    def extend(self, size: int) -> None:
        """Reserve *size* bytes in all. Raises OwnerBytesLimit."""
        more = size - self._size
        if more <= 0:
            return
        usage = self._usage
        left = self._bytes_max - usage.stored - usage.incoming
        if more > left:
            raise OwnerBytesLimit(
                f"the files of one owner have at most {self._bytes_max} bytes, and {left} are left"
            )
        usage.incoming += more
        self._size = size

    def release(self) -> None:
        self._usage.incoming -= self._size
        self._size = 0

    async def cover(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """*chunks*, each reserved before it is yielded."""
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            self.extend(size)
            yield chunk
