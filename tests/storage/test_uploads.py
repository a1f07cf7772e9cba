"""Who has uploaded what is recorded durably, and its size is limited."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventjobs.errors import OwnerBytesLimit
from eventjobs.storage.artifacts import Artifacts
from eventjobs.storage.uploads import Uploads

A, B = b"a" * 40, b"b" * 50


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def open_uploads(folder: Path, bytes_max: int | None = None) -> Uploads:
    artifacts = Artifacts(folder / "artifacts", 2**20)
    await asyncio.to_thread(artifacts.prepare)
    return Uploads(folder / "uploads", artifacts, bytes_max)


def count_files(folder: Path) -> int:
    """The number of files in the folder of the content, with those that are arriving."""
    return sum(each.is_file() for each in (folder / "artifacts").rglob("*"))


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_an_upload_belongs_to_its_owner_also_after_a_restart(tmp_path: Path) -> None:
    uploads = await open_uploads(tmp_path)
    assert await uploads.receive("ann", stream(A)) == (sha256(A), len(A))
    await uploads.receive("ann", stream(A))
    await uploads.receive("../eve\0", stream(B))
    for each in (uploads, (await open_uploads(tmp_path))):
        assert await each.has("ann", sha256(A))
        assert await each.has("../eve\0", sha256(B))
        assert not await each.has("ann", sha256(B))
        assert not await each.has("bob", sha256(A))
    assert {each.name for each in tmp_path.iterdir()} == {"artifacts", "uploads"}


async def test_an_upload_without_an_owner_is_stored_as_before(tmp_path: Path) -> None:
    uploads = await open_uploads(tmp_path, bytes_max=0)
    assert await uploads.receive(None, stream(A)) == (sha256(A), len(A))
    assert not (tmp_path / "uploads").exists()


async def test_an_upload_above_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    uploads = await open_uploads(tmp_path, bytes_max=100)
    await uploads.receive("ann", stream(A))
    for chunks, announced in (((b"c" * 30, b"d" * 31), 0), ((b"c",), 61)):
        with pytest.raises(OwnerBytesLimit):
            await uploads.receive("ann", stream(*chunks), announced)
    assert count_files(tmp_path) == 1
    await uploads.receive("ann", stream(A))  # the same file counts once
    await uploads.receive("ann", stream(B, b"b" * 10), 60)
    await uploads.receive("bob", stream(b"c" * 100), 100)
    with pytest.raises(OwnerBytesLimit):
        await uploads.receive("ann", stream(b"c"))


async def test_what_is_announced_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(OwnerBytesLimit):
        await (await open_uploads(tmp_path, bytes_max=10)).receive("ann", unread(), 11)


async def test_concurrent_uploads_never_exceed_the_limit(tmp_path: Path) -> None:
    uploads = await open_uploads(tmp_path, bytes_max=100)
    go_on = asyncio.Event()

    async def slow(content: bytes) -> AsyncIterator[bytes]:
        yield content
        await go_on.wait()
        yield content

    tasks = [
        asyncio.create_task(uploads.receive("ann", slow(bytes([number]) * 20)))
        for number in range(5)
    ]
    while not any(task.done() for task in tasks):
        go_on.set()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, OwnerBytesLimit) for each in results) == 3
    assert count_files(tmp_path) == 2
    await uploads.receive("ann", stream(b"d" * 20))  # the refused ones have left no trace


async def test_an_upload_that_breaks_off_gives_its_room_back(tmp_path: Path) -> None:
    uploads = await open_uploads(tmp_path, bytes_max=100)

    async def broken() -> AsyncIterator[bytes]:
        yield b"c" * 100
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await uploads.receive("ann", broken(), 100)
    await uploads.receive("ann", stream(b"d" * 100), 100)


async def test_at_a_start_what_is_still_stored_counts(tmp_path: Path) -> None:
    uploads = await open_uploads(tmp_path, bytes_max=100)
    await uploads.receive("ann", stream(A))
    await uploads.receive("ann", stream(B))
    uploads = await open_uploads(tmp_path, bytes_max=100)
    with pytest.raises(OwnerBytesLimit):
        await uploads.receive("ann", stream(b"c" * 11))
    Artifacts(tmp_path / "artifacts", 0).path(sha256(A)).unlink()
    await (await open_uploads(tmp_path, bytes_max=100)).receive("ann", stream(b"c" * 50))
