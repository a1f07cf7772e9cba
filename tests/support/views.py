"""Views of a log."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eventjobs.domain.recorded import Recorded
from eventjobs.projections import JobChange, Views, queue
from eventjobs.projections.change import Statement
from tests.support.clock import FakeClock
from tests.support.histories import log_of
from tests.support.memory_log import MemoryLog


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder, in memory if possible: these tests are about rows, not about disks."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@asynccontextmanager
async def views_of(
    history: Sequence[Recorded], clock: FakeClock | None = None
) -> AsyncIterator[Views]:
    """Views of *history*."""
    clock = clock or FakeClock()
    log = await log_of(history, clock)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            await views.wait_for_position(log.head)
            yield views


def refuse_payload_13(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """A projection that raises *error*, or RuntimeError("thirteen"), for any change of a job with
    payload 13.
    """
    apply = queue.apply

    def strict(changes: Iterable[JobChange]) -> Iterator[Statement]:
        changes = list(changes)
        if any(each.after.spec.payload == 13 and each.after.parked is None for each in changes):
            raise error or RuntimeError("thirteen")
        return apply(changes)

    monkeypatch.setattr(queue, "apply", strict)


@asynccontextmanager
async def running(path: Path, log: MemoryLog, clock: FakeClock) -> AsyncIterator[Views]:
    views = await Views.open(path, log, clock)
    task = asyncio.create_task(views.run())
    try:
        yield views
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await views.close()
