"""One life of a service, run under a trace.

    python -m eventjobs.tools.soak.power.lives LIFE DATA SEED [SABOTAGE]

Its promises are written to the file `notes`: `event POSITION JOB` for the response to a submission,
`head POSITION` for the head that readers see, `job ID` and `file SHA256` for responses over HTTP,
`key SHA256` for the key in use.
"""

import asyncio
import hashlib
import os
import random
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import aiosqlite

import eventjobs.log.sqlite
import eventjobs.projections.store
from eventjobs import Service
from eventjobs.client import Client
from eventjobs.errors import UnknownArtifact
from eventjobs.projections import status
from eventjobs.settings import Settings
from eventjobs.storage import data_directory as directory
from eventjobs.storage.artifacts import Artifacts

from ... import replay
from .handlers import HANDLERS

#: In pages: every few dozen events, where the service has it every few thousand.
CHECKPOINT = 30
ID = "00000000-0000-4000-8000-{:012}"
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def rig(sabotage: str) -> None:
    """Checkpoint often, and apply *sabotage*."""
    _replace_pragma(r"wal_autocheckpoint = [1-9]\d*", f"wal_autocheckpoint = {CHECKPOINT}")
    SABOTAGES[sabotage]()


def _replace_pragma(pattern: str, other: str) -> None:
    execute = aiosqlite.Connection.execute_fetchall

    def replace(self: aiosqlite.Connection, sql: str, *more: Any) -> Any:
        return execute(self, re.sub(f"^PRAGMA {pattern}$", f"PRAGMA {other}", sql), *more)

    aiosqlite.Connection.execute_fetchall = replace  # type: ignore[method-assign]


def _sync_only(is_right: Callable[[int], bool]) -> None:
    """Python's fsync syncs only what *is_right*; SQLite has its own."""
    fsync = os.fsync

    def careless(descriptor: int) -> None:
        if is_right(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    os.fsync = careless  # type: ignore[assignment]


def _patch(place: object, **others: object) -> None:
    for name, other in others.items():
        assert hasattr(place, name), name
        setattr(place, name, other)


def _make_carelessly(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _nothing(*_: object) -> None:
    pass


#: Faults by name, each a missing sync. The last four acknowledge what may not be durable.
SABOTAGES: dict[str, Callable[[], object]] = {
    "": _nothing,
    "commits": lambda: _replace_pragma("synchronous = FULL", "synchronous = NORMAL"),
    "folders": lambda: _sync_only(stat.S_ISREG),
    "files": lambda: _sync_only(stat.S_ISDIR),
    "log": lambda: _patch(eventjobs.log.sqlite, sync_database=_nothing),
    "uploads": lambda: _patch(Artifacts, _is_whole=lambda *_: True),
    "views": lambda: _patch(eventjobs.projections.store, sync=_nothing, replace=Path.replace),
    "parents": lambda: _patch(directory, make_directory=_make_carelessly),
}


class Life:
    """A service in *data*, and a client that notes its responses."""

    def __init__(self, data: Path, seed: int, sabotage: str) -> None:
        self.data = data
        self.sabotage = sabotage
        self.draw = random.Random(seed)
        self._notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, *what: object) -> None:
        os.write(self._notes, (" ".join(map(str, what)) + "\n").encode())

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Service]:
        settings = Settings(result_bytes_max=1024, drain_s=0.2)
        async with Service(self.data, HANDLERS, settings=settings) as service:
            self.note("key", hashlib.sha256((self.data / "secret.key").read_bytes()).hexdigest())
            self.note("head", service.log.head)
            reader = asyncio.create_task(self._read(service))
            try:
                yield service
            finally:
                reader.cancel()

    async def _read(self, service: Service) -> None:
        head = service.log.head
        while True:
            head = await service.log.wait(head)
            self.note("head", head)

    def text(self) -> str:
        return "".join(self.draw.choices("abcdefgh", k=8 + self.draw.randrange(200)))

    async def submit(self, service: Service, number: int, type: str, **more: Any) -> str:
        payload = {"text": self.text()}
        job = await service.submit(type, payload, job_id=ID.format(number), **more)
        self.note("event", job.position, job.job_id)
        return job.job_id

    async def jobs(self, service: Service, numbers: Iterable[int]) -> None:
        """Submit jobs of all types, some concurrently, and wait for them."""
        waiting = []
        for number in numbers:
            type, more = self.draw.choice(HANDLERS).type, {}
            if type == "files":
                content = self.text().encode() * 30
                sha256, _ = await asyncio.to_thread(service.artifacts.store, content)
                self.note("file", sha256)
                more["artifacts"] = await service.submissions.artifacts_of({"in.txt": sha256})
            waiting.append(asyncio.create_task(self.submit(service, number, type, **more)))
            if self.draw.random() < 0.2:
                await asyncio.gather(*map(service.wait, await asyncio.gather(*waiting)))
        await asyncio.gather(*map(service.wait, await asyncio.gather(*waiting)))


async def start(life: Life) -> None:
    """The first start, which makes the data directory."""
    async with life.service() as service:
        await life.jobs(service, range(8))


async def load(life: Life) -> None:
    """Many jobs, with checkpoints of the log and of the views."""
    async with life.service() as service:
        await life.jobs(service, range(50))


async def rebuild(life: Life) -> None:
    """Rebuilt views replace the live ones, in the service and by the replay command."""
    async with life.service() as service:
        await life.jobs(service, range(20))
        for number in (100, 200):
            at_once = asyncio.create_task(life.jobs(service, range(number, number + 10)))
            await service.views.rebuild()
            await at_once
    await asyncio.to_thread(replay.replay, life.data, lambda position, until: None)
    async with life.service() as service:
        await life.jobs(service, range(300, 304))


async def swap(life: Life) -> None:
    """The views are replaced again and again."""
    async with life.service() as service:
        await life.jobs(service, range(60))
        await service.views.rebuild()
        await life.jobs(service, range(100, 110))
        await service.views.rebuild()


async def upgrade(life: Life) -> None:
    """The views are of another version of the code: they are removed and rebuilt."""
    for number in (0, 100, 200):
        async with life.service() as service:
            await life.jobs(service, range(number, number + 12))
        status.VERSION += 1


async def restart(life: Life) -> None:
    for number in (0, 100, 200):
        async with life.service() as service:
            await life.jobs(service, range(number, number + 10))


async def upload(life: Life) -> None:
    """One client uploads a file, and another attaches it as soon as it exists."""
    async with life.service() as service:
        for number in range(10):
            content = life.text().encode() * 20
            uploading = asyncio.create_task(asyncio.to_thread(service.artifacts.store, content))
            sha256 = hashlib.sha256(content).hexdigest()
            artifacts = None
            while artifacts is None:
                with suppress(UnknownArtifact):
                    artifacts = await service.submissions.artifacts_of({"in.txt": sha256})
            await life.submit(service, number, "noop", artifacts=artifacts, run_at=LATER)
            await uploading


async def wait(life: Life) -> None:
    """Submissions of later jobs, each a commit of its own, and a file for each."""
    async with life.service() as service:
        for number in range(6):
            life.draw.seed(number)
            await asyncio.to_thread(service.artifacts.store, life.text().encode())
            await life.submit(service, number, "noop", run_at=LATER)


async def repeat(life: Life) -> None:
    """After a kill in *wait*: the client repeats the submissions, and attaches the files."""
    async with life.service() as service:
        for number in range(6):
            life.draw.seed(number)
            life.text()
            await life.submit(service, number, "noop", run_at=LATER)
        for number in range(6):
            life.draw.seed(number)
            sha256 = hashlib.sha256(life.text().encode()).hexdigest()
            with suppress(UnknownArtifact):
                named = await service.submissions.artifacts_of({"in.txt": sha256})
                await life.submit(service, 10 + number, "noop", artifacts=named, run_at=LATER)


async def go_on(life: Life) -> None:
    """After a kill anywhere: more jobs."""
    async with life.service() as service:
        first = 1000 * service.log.head
        await life.jobs(service, range(first, first + 8))


async def http(life: Life) -> None:
    """`eventjobs serve`, and a client that notes every response."""
    command = [sys.executable, "-m", __spec__.name, "serve", str(life.data), "0", life.sabotage]
    server = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert server.stdout is not None
    url = None
    while url is None:
        line = await server.stdout.readline()
        assert line, "the server has not started"
        url = re.search(r"http://[\d.]+:\d+", line.decode())
    async with Client(url[0]) as client, aiohttp.ClientSession(url[0]) as session:
        for first in range(0, 30, 5):
            await asyncio.gather(*(_ask(life, client, session, first + n) for n in range(5)))
    server.terminate()
    assert await server.wait() == 0


async def _ask(life: Life, client: Client, session: aiohttp.ClientSession, number: int) -> None:
    type, more = life.draw.choice(HANDLERS).type, {}
    if type == "files":
        async with session.post("/v1/artifacts", data=life.text().encode() * 30) as answer:
            assert answer.status == 201
            sha256 = (await answer.json())["sha256"]
        life.note("file", sha256)
        more["artifacts"] = {"in.txt": sha256}
    body = {"type": type, "payload": {"text": life.text()}, **more}
    async with session.put(f"/v1/jobs/{ID.format(number)}", json=body) as answer:
        assert answer.status == 202, await answer.text()
    life.note("job", ID.format(number))
    await client.wait(ID.format(number))


LIVES: dict[str, Callable[[Life], Coroutine[Any, Any, None]]] = {
    each.__name__: each
    for each in (start, load, rebuild, swap, upgrade, restart, upload, wait, repeat, go_on, http)
}


def main(name: str, data: str, seed: str, sabotage: str = "") -> None:
    rig(sabotage)
    if name == "serve":
        from eventjobs.cli import app

        os.environ |= {"EVENTJOBS_RESULT_BYTES_MAX": "1024", "EVENTJOBS_DRAIN_S": "0.2"}
        module = HANDLERS[0].function.__module__
        app(["serve", "--port", "0", "--data", data, "--app", f"{module}:HANDLERS"])
    else:
        asyncio.run(LIVES[name](Life(Path(data), int(seed), sabotage)))


if __name__ == "__main__":
    main(*sys.argv[1:])
