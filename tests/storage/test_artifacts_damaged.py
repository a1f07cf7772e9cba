"""A file is checked against its SHA-256 whenever it is read."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from eventjobs.domain.spec import Artifact
from eventjobs.errors import ArtifactDamaged, InvalidInput, UnknownArtifact
from eventjobs.execution.results import failure
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.storage.artifacts import Artifacts
from tests.conftest import Connect, Serve
from tests.support import process_handlers
from tests.support.log_lines import capture_logs
from tests.support.remote_runner import declare_remote, remote_runner

MIB = 2**20
CONTENT = os.urandom(3 * MIB + 17)

Damage = Callable[[Path], object]


def one_bit(path: Path) -> None:
    with path.open("r+b") as file:
        [byte] = file.read(1)
        file.seek(0)
        file.write(bytes([byte ^ 1]))


def last_bit_with_its_old_time(path: Path) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def shorter(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def empty(path: Path) -> None:
    os.truncate(path, 0)


def another(path: Path) -> None:
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(bytes(size))


DAMAGES: list[Damage] = [one_bit, last_bit_with_its_old_time, shorter, longer, empty, another]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    artifacts_there = Artifacts(tmp_path / "artifacts", 4 * MIB)
    artifacts_there.prepare()
    return artifacts_there


def told_of(lines: Any) -> set[tuple[str, str]]:
    return {(each["log_level"], each["event"]) for each in lines}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("content", [CONTENT, b"small"])
@pytest.mark.parametrize("part", [(0, None), (0, 1), (4, 5), (1, 4)])
def test_a_damaged_file_is_never_read_to_its_end(
    artifacts: Artifacts, content: bytes, damage: Damage, part: tuple[int, int | None]
) -> None:
    sha256, size = artifacts.store(content)
    assert b"".join(artifacts.read_blocks(sha256, size, *part)) == content[slice(*part)]
    damage(artifacts.path(sha256))
    read: list[bytes] = []
    with capture_logs() as lines, pytest.raises(ArtifactDamaged):
        read.extend(artifacts.read_blocks(sha256, size, *part))
    assert len(b"".join(read)) < len(content[slice(*part)])
    assert told_of(lines) == {("error", "artifact damaged")}
    assert sha256 in lines[0]["path"]


def test_a_part_of_a_known_file_is_read_by_itself(artifacts: Artifacts, tmp_path: Path) -> None:
    sha256, size = artifacts.store(CONTENT)
    for opened in (artifacts, Artifacts(tmp_path / "artifacts", 4 * MIB)):
        if opened is not artifacts:  # after a restart once more, and then no longer
            assert len([*opened.read_blocks(sha256, size, size - 5, size)]) > 1
        last = [*opened.read_blocks(sha256, size, size - 5, size)]
        assert last == [CONTENT[-5:]], "without the empty blocks of what is read before it"


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_not_here_until_it_is_stored_again(
    artifacts: Artifacts, damage: Damage
) -> None:
    sha256, size = await asyncio.to_thread(artifacts.store, CONTENT)
    assert await artifacts.size(sha256) == size
    await asyncio.to_thread(damage, artifacts.path(sha256))
    with capture_logs() as lines:
        assert await artifacts.size(sha256) is None
    assert told_of(lines) == {("error", "artifact damaged")}
    await asyncio.to_thread(artifacts.store, CONTENT)
    assert await artifacts.size(sha256) == size


async def test_a_file_that_is_found_is_synced_once(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its upload may be between the rename and the sync of the folder, or may have been killed
    there: a job that named it was acknowledged, and a power cut took the file."""
    synced: list[Path] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = artifacts.path(hashlib.sha256(b"found").hexdigest())
    path.parent.mkdir()
    path.write_bytes(b"found")
    assert await artifacts.size(path.name) == 5
    assert synced == [path, path.parent, path.parent.parent]
    synced.clear()
    assert await artifacts.size(path.name) == 5
    assert synced == []
    await asyncio.to_thread(path.unlink)
    path.write_bytes(b"found")
    assert await artifacts.size(path.name) == 5
    assert synced == [path, path.parent, path.parent.parent]


async def test_a_file_that_was_stored_is_known_to_be_durable(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, size = await asyncio.to_thread(artifacts.store, b"stored")
    monkeypatch.setattr(os, "fsync", None)
    assert await artifacts.size(sha256) == size


async def test_an_upload_that_is_not_synced_yet_is_synced_by_whoever_names_it(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifacts.path(hashlib.sha256(b"racing").hexdigest())
    synced: list[Path] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        at = Path(f"/proc/self/fd/{descriptor}").readlink()
        if at == path.parent and not synced:
            synced.append(at)
            # Renamed, and not synced yet: at this very moment another submission looks it up.
            assert artifacts._size(path.name) == 6
            assert synced[1:] == [path, path.parent, path.parent.parent]
        elif synced:
            synced.append(at)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await asyncio.to_thread(artifacts.store, b"racing")
    assert synced[4:] == [path.parent.parent]


def test_a_file_that_rots_on_the_disk_is_damaged_from_when_that_is_seen(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not written to: its times are unchanged."""
    monkeypatch.setattr("eventjobs.storage.artifacts._Identity.of", lambda status: "the same")
    sha256, size = artifacts.store(CONTENT)
    one_bit(artifacts.path(sha256))
    assert b"".join(artifacts.read_blocks(sha256, size, 5, 9)) == CONTENT[5:9]
    with pytest.raises(ArtifactDamaged):
        artifacts.checked_path(sha256, size)
    with pytest.raises(ArtifactDamaged):
        b"".join(artifacts.read_blocks(sha256, size, 5, 9))
    assert asyncio.run(artifacts.size(sha256)) is None
    one_bit(artifacts.path(sha256))
    assert artifacts.checked_path(sha256, size) == artifacts.path(sha256), "it was the cable"


# --- over HTTP


@handler("loop")
async def loop(context: Context, payload: Any) -> str:
    return hashlib.sha256(await asyncio.to_thread(context.input("a").read_bytes)).hexdigest()


@handler("thread")
def thread(context: ThreadContext, payload: Any) -> str:
    return hashlib.sha256(context.input().read_bytes()).hexdigest()


async def with_file(service: Any, type: str, content: bytes, **spec: Any) -> tuple[str, Path]:
    sha256, _ = await asyncio.to_thread(service.artifacts.store, content)
    given = await service.submissions.artifacts_of({"a": sha256})
    job = await service.submit(type, artifacts=given, **spec)
    return job.job_id, service.artifacts.path(sha256)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_small_damaged_file_is_an_error_and_not_served(
    client: Connect, damage: Damage
) -> None:
    api = await client(loop, concurrency=0)
    job_id, path = await with_file(api.service, "loop", b"true content")
    await asyncio.to_thread(damage, path)
    for more in ({}, {"Range": "bytes=1-3"}):
        with capture_logs() as lines:
            reply = await api.get(f"/v1/jobs/{job_id}/artifacts/a", **more)
        assert (reply.status, reply.code) == (500, "artifact_damaged")
        assert ("error", "artifact damaged") in told_of(lines)
        assert str(path) not in reply.body.decode()
    await asyncio.to_thread(api.service.artifacts.store, b"true content")
    assert (await api.get(f"/v1/jobs/{job_id}/artifacts/a")).body == b"true content"


@pytest.mark.parametrize("damage", [one_bit, last_bit_with_its_old_time, shorter, longer])
async def test_a_large_damaged_file_is_broken_off_and_then_an_error(
    client: Connect, damage: Damage
) -> None:
    """A client that repeats its request, as a worker does, was interrupted each time."""
    api = await client(loop, concurrency=0)
    job_id, path = await with_file(api.service, "loop", CONTENT)
    await asyncio.to_thread(damage, path)
    with capture_logs() as lines, pytest.raises(aiohttp.ClientPayloadError):
        await api.get(f"/v1/jobs/{job_id}/artifacts/a")
    assert ("error", "artifact damaged") in told_of(lines)
    reply = await api.get(f"/v1/jobs/{job_id}/artifacts/a")
    assert (reply.status, reply.code) == (500, "artifact_damaged")
    await asyncio.to_thread(api.service.artifacts.store, CONTENT)
    assert (await api.get(f"/v1/jobs/{job_id}/artifacts/a")).body == CONTENT


# --- for handlers


@pytest.mark.parametrize("damage", [one_bit, Path.unlink])
@pytest.mark.parametrize("run", [loop, thread, process_handlers.work])
async def test_a_handler_is_not_given_a_damaged_file(
    serve: Serve, run: Handler, damage: Damage
) -> None:
    service = await serve(run, concurrency=0)
    name = "given.txt" if run.type == "work" else "a"
    sha256, _ = await asyncio.to_thread(service.artifacts.store, b"true content")
    given = await service.submissions.artifacts_of({name: sha256})
    job = await service.submit(run.type, {"item": "x"}, artifacts=given, max_attempts=1)
    await asyncio.to_thread(damage, service.artifacts.path(sha256))
    with pytest.raises(UnknownArtifact):
        await service.submissions.artifacts_of({"a": sha256})
    await service.close()
    service = await serve(run)
    job = await service.wait(job.job_id)
    assert job.error is not None
    assert job.error["code"] == "artifact_damaged"
    assert job.error["class"] == "artifact"
    assert job.error["message"].startswith(f"{name}: ")


async def test_an_artifact_has_the_size_of_its_file(serve: Serve) -> None:
    """With another one it could never be read: no file is both."""
    service = await serve(loop, concurrency=0)
    sha256, size = await asyncio.to_thread(service.artifacts.store, b"true content")
    for wrong in (0, size - 1, size + 1):
        with pytest.raises(InvalidInput, match="another size"):
            await service.submit("loop", artifacts=(Artifact("a", sha256, wrong),))
    job = await service.submit("loop", artifacts=(Artifact("a", sha256, size),))
    assert job.artifacts == (Artifact("a", sha256, size),)


def test_a_damaged_file_has_its_code_whatever_of_a_handler_reads_it() -> None:
    """As `ctx.result` does for a large result."""
    failed = failure(ArtifactDamaged())
    assert (failed.code, failed.retryable) == ("artifact_damaged", True)


@pytest.mark.parametrize("content", [b"small", CONTENT], ids=["small", "large"])
@pytest.mark.parametrize("run", [loop, thread])
async def test_a_worker_elsewhere_does_not_wait_for_a_damaged_file(
    client: Connect, tmp_path: Path, run: Handler, content: bytes
) -> None:
    """It asked for the file for ever, and kept the job meanwhile."""
    api = await client(*declare_remote(run))
    job_id, path = await with_file(api.service, run.type, content, max_attempts=1)
    await asyncio.to_thread(one_bit, path)
    async with remote_runner(api, tmp_path / "worker", run):
        job = await api.service.wait(job_id)
    assert job.error is not None
    assert (job.error["code"], job.error["class"]) == ("artifact_damaged", "artifact")


async def test_a_worker_elsewhere_fetches_what_was_damaged_there_again(
    client: Connect, tmp_path: Path
) -> None:
    api = await client(*declare_remote(thread))
    job_id, path = await with_file(api.service, "thread", b"content")
    damaged = tmp_path / "worker" / path.parent.name / path.name
    async with remote_runner(api, tmp_path / "worker", concurrency=0, threads=0) as worker:
        damaged.parent.mkdir(mode=0o700)
        damaged.write_bytes(b"damaged")
        assert await worker.source.files.size(path.name) is None
    async with remote_runner(api, tmp_path / "worker", thread):
        job = await api.service.wait(job_id)
    assert job.result == path.name
