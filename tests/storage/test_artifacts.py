"""Files are kept by their content: whole, once, private, or not at all."""

import asyncio
import hashlib
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.validation import check_name
from eventjobs.errors import DiskFull, InvalidInput, TooLarge
from eventjobs.storage.artifacts import Artifacts
from tests.support.waiting import turns

MIB = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def artifacts(folder: Path) -> Artifacts:
    return prepare_store(folder)


def prepare_store(folder: Path, bytes_max: int = 4 * MIB) -> Artifacts:
    artifacts = Artifacts(folder, bytes_max)
    artifacts.prepare()
    return artifacts


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("content", [b"", b"a", b"line\n" * 500_000])
def test_content_is_kept_under_its_hash(artifacts: Artifacts, folder: Path, content: bytes) -> None:
    assert artifacts.store(content) == (sha256(content), len(content))
    assert artifacts.path(sha256(content)).read_bytes() == content
    assert files(folder) == [f"{sha256(content)[:2]}/{sha256(content)}"]


def test_a_file_is_kept_as_its_content_is(artifacts: Artifacts, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB + 17)
    (tmp_path / "made").write_bytes(content)
    assert artifacts.store(tmp_path / "made") == (sha256(content), len(content))
    assert artifacts.path(sha256(content)).read_bytes() == content
    assert (tmp_path / "made").exists(), "it is copied, not moved"


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(1, 100_000))
async def test_a_stream_is_kept_however_it_is_cut(pieces: list[bytes], times: int) -> None:
    content = b"".join(piece * times for piece in pieces)
    with TemporaryDirectory() as folder:
        artifacts = Artifacts(Path(folder) / "artifacts", 10 * len(content) + 1)
        await asyncio.to_thread(artifacts.prepare)
        kept = await artifacts.receive(stream(*(piece * times for piece in pieces)))
        assert kept == (sha256(content), len(content))
        assert artifacts.path(kept[0]).read_bytes() == content


async def test_the_same_content_is_kept_once(artifacts: Artifacts, folder: Path) -> None:
    one = await asyncio.gather(*(artifacts.receive(stream(b"sa", b"me")) for _ in range(5)))
    assert set(one) == {(sha256(b"same"), 4)}
    assert len(files(folder)) == 1


async def test_its_size_is_known_if_it_is_here(artifacts: Artifacts) -> None:
    kept, _ = await artifacts.receive(stream(b"12345"))
    assert await artifacts.size(kept) == 5
    assert await artifacts.size(sha256(b"other")) is None


@pytest.mark.parametrize("name", ["", "../../log.db", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
async def test_what_is_no_hash_is_never_a_path(artifacts: Artifacts, name: str) -> None:
    assert await artifacts.size(name) is None


async def test_one_byte_too_many_is_refused_and_leaves_nothing(folder: Path) -> None:
    artifacts = await asyncio.to_thread(prepare_store, folder, 2 * MIB)
    kept, _ = await artifacts.receive(stream(bytes(MIB), bytes(MIB)))
    assert await artifacts.size(kept) == 2 * MIB
    with pytest.raises(TooLarge, match=str(2 * MIB)):
        await artifacts.receive(stream(bytes(MIB), bytes(MIB), b"1"))
    with pytest.raises(TooLarge):
        await asyncio.to_thread(artifacts.store, bytes(2 * MIB + 1))
    assert len(files(folder)) == 1


async def test_an_upload_that_breaks_off_leaves_nothing(artifacts: Artifacts, folder: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * MIB)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await artifacts.receive(broken())
    assert files(folder) == []


async def test_a_cancelled_upload_leaves_nothing(artifacts: Artifacts, folder: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(2 * MIB)
        begun.set()
        await asyncio.Event().wait()

    receiving = asyncio.create_task(artifacts.receive(endless()))
    await begun.wait()
    assert len(files(folder)) == 1
    receiving.cancel()
    await asyncio.wait({receiving})
    assert receiving.cancelled()
    assert files(folder) == []


async def test_an_upload_cancelled_while_its_thread_writes_leaves_nothing(
    artifacts: Artifacts, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread went on, and made the file after it had been removed."""
    writing = threading.Event()
    go = threading.Event()
    really_open = os.open

    def slow_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        writing.set()
        go.wait()
        return really_open(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", slow_open)
        receiving = asyncio.create_task(artifacts.receive(stream(bytes(2 * MIB))))
        await asyncio.to_thread(writing.wait)
        receiving.cancel()
        await turns()
        go.set()
        await asyncio.wait({receiving})
    assert receiving.cancelled()
    assert files(folder) == []


def test_what_an_upload_left_at_a_crash_is_cleared_at_the_next_start(
    artifacts: Artifacts, folder: Path
) -> None:
    kept, _ = artifacts.store(b"whole")
    (folder / "incoming" / "half").write_bytes(b"ha")
    artifacts.prepare()
    assert files(folder) == [f"{kept[:2]}/{kept}"]


def test_files_and_folders_are_their_owners_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        prepare_store(folder).store(b"secret")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(each.stat().st_mode) for each in folder.rglob("*") if each.is_dir()}
    assert modes == {0o700}
    [kept] = (each for each in folder.rglob("*") if each.is_file())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_full_disk_keeps_nothing_and_heals(small_disk: Path) -> None:
    """Half of it fits: a write that was cut short must not pass for the whole."""
    artifacts = await asyncio.to_thread(prepare_store, small_disk / "artifacts")
    kept, _ = await artifacts.receive(stream(os.urandom(2 * MIB)))
    for size in (MIB + 1000, 2 * MIB, 3 * MIB):
        with pytest.raises(DiskFull):
            await artifacts.receive(stream(os.urandom(size)))
        with pytest.raises(DiskFull):
            await asyncio.to_thread(artifacts.store, os.urandom(size))
    assert files(small_disk / "artifacts") == [f"{kept[:2]}/{kept}"]
    content = os.urandom(MIB // 2)
    assert await artifacts.receive(stream(content)) == (sha256(content), len(content))


@pytest.mark.parametrize("name", ["a", "0", "Result (2) + x_y-z.tar.gz", "a" * 128])
def test_an_artifact_may_be_called(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", " a", "-a", "a/b", "a\\b", "a\n", "a\0", "ü", "a" * 129]
)
def test_an_artifact_may_not_be_called(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)
