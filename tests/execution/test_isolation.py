"""What a handler changes of its process affects neither the next job nor the service."""

import asyncio
import contextvars
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from eventjobs.domain.events import LogWritten
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Connect, Serve
from tests.support.process_handlers import pid
from tests.support.waiting import events_of

tenant = contextvars.ContextVar[str | None]("tenant", default=None)


async def result_of(service: Service, type: str, payload: Any = None) -> Any:
    job = await service.wait((await service.submit(type, payload)).job_id)
    assert job.status == "completed", job.error
    return job.result


# --- the next job


def bind(name: str | None) -> list[Any]:
    seen = [tenant.get(), dict(structlog.contextvars.get_contextvars())]
    if name:
        tenant.set(name)
        structlog.contextvars.bind_contextvars(customer=name)
    structlog.get_logger().info("at it")
    return seen


@handler("bind")
async def bind_on_the_loop(ctx: Context, name: str | None) -> list[Any]:
    return bind(name)


@handler("bind")
def bind_in_a_thread(ctx: ThreadContext, name: str | None) -> list[Any]:
    return bind(name)


@handler("bind", process=True)
def bind_in_a_process(ctx: ThreadContext, name: str | None) -> list[Any]:
    return bind(name)


@pytest.mark.parametrize("binds", [bind_on_the_loop, bind_in_a_thread, bind_in_a_process])
async def test_what_a_job_binds_is_not_there_for_the_next(serve: Serve, binds: Handler) -> None:
    tenant.set("of the caller that starts the service")
    structlog.contextvars.bind_contextvars(customer="of the caller that starts the service")
    try:
        service = await serve(binds, processes=1)
        await result_of(service, "bind", "acme")
        job = await service.submit("bind")
        assert (await service.wait(job.job_id)).result == [None, {}]
    finally:
        structlog.contextvars.clear_contextvars()
    lines = [each for each in await events_of(service, job.job_id) if isinstance(each, LogWritten)]
    assert [each.message for each in lines] == ["at it"]
    assert "customer" not in (lines[0].fields or {})


# --- the service


def leave_the_directory() -> None:
    os.chdir("/")


def remove_the_directory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def spoil_the_environment() -> None:
    os.environ.clear()
    os.environ["PYTHONHOME"] = "/nowhere"
    os.environ["EVENTJOBS_DATA"] = "/nowhere"


def spoil_new_sockets() -> None:
    socket.setdefaulttimeout(0.001)


def spoil_new_files() -> None:
    os.umask(0)


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a directory of its own; they are put back at the end."""
    monkeypatch.chdir(tmp_path)
    environment, umask = dict(os.environ), os.umask(0o022)
    yield
    os.environ.clear()
    os.environ.update(environment)
    os.umask(umask)
    socket.setdefaulttimeout(None)


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize(
    "spoil",
    [
        leave_the_directory,
        remove_the_directory,
        spoil_the_environment,
        spoil_new_sockets,
        spoil_new_files,
    ],
)
async def test_what_a_handler_changes_is_not_in_the_way_of_the_service(
    client: Connect, tmp_path: Path, spoil: Callable[[], None]
) -> None:
    @handler("spoil")
    def spoils(ctx: ThreadContext, payload: Any) -> None:
        spoil()

    @handler("large")
    async def large(ctx: Context, payload: Any) -> str:
        await ctx.artifact("file", b"content")
        return "x" * 300_000

    api = await client(spoils, large, pid, data=Path("data"))
    await result_of(api.service, "spoil")
    assert await result_of(api.service, "large") == {"artifact": "result.json", "size": 300_002}
    assert isinstance(await result_of(api.service, "pid"), int)
    assert (await api.get("/readyz")).status == 200
    job = (await api.get("/v1/jobs?type=large")).json["jobs"][0]
    file = await api.get(f"/v1/jobs/{job['job_id']}/artifacts/file")
    assert file.body == b"content"
    await api.service.close()
    modes = {each.stat().st_mode & 0o077 for each in (tmp_path / "data").rglob("*")}
    assert modes == {0}

    async with Service(tmp_path / "data", [large]) as again:
        assert (await again.wait(job["job_id"])).status == "completed"


@pytest.mark.usefixtures("surroundings")
async def test_a_service_of_a_relative_directory_starts_where_it_was_made(tmp_path: Path) -> None:
    service = Service(settings=Settings(data=Path("data")))
    os.chdir("/")
    await service.start()
    await service.close()
    assert (tmp_path / "data" / "log.db").exists()


@pytest.mark.usefixtures("surroundings")
async def test_a_service_starts_in_a_directory_that_was_removed(tmp_path: Path) -> None:
    remove_the_directory()
    async with Service(tmp_path / "data", [pid]) as service:
        assert isinstance(await result_of(service, "pid"), int)


async def test_a_batch_of_reports_is_sent_in_nobodys_context() -> None:
    from eventjobs.concurrency.batcher import Batcher

    seen = []

    async def send(items: Any) -> list[Any]:
        seen.append(tenant.get())
        return list(items)

    tenant.set("acme")
    batcher = Batcher[int, int](send, 10)
    assert list(await asyncio.gather(batcher.submit(1), batcher.submit(2))) == [1, 2]
    assert seen == [None]
