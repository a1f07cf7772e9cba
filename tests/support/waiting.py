"""Waiting for facts in the log, never for time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from eventjobs.domain.events import Event
from eventjobs.domain.job import Job, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.service import Service
from tests.support.clock import FakeClock

Answer = TypeVar("Answer")


async def job_when(service: Service, job_id: str, is_so: Callable[[Job], bool]) -> Job:
    """The job, once *is_so* holds for it."""
    while True:
        head = service.log.head
        job = fold(await service.log.read_job(job_id))
        if job is not None and is_so(job):
            return job
        await service.log.wait(head, job_id)


async def events_of(service: Service, job_id: str) -> list[Event]:
    """The events of a job."""
    return [each.event for each in await service.log.read_job(job_id)]


async def kinds(service: Service, job_id: str) -> str:
    """The classes of a job's events: "JobSubmitted AttemptStarted JobCompleted"."""
    return " ".join(type(each).__name__ for each in await events_of(service, job_id))


async def recorded_of(service: Service, job_id: str, kind: type[Event]) -> list[Recorded]:
    """The events of a job of one class."""
    return [each for each in await service.log.read_job(job_id) if isinstance(each.event, kind)]


async def time_passing(
    clock: FakeClock, waiting: Coroutine[Any, Any, Answer], step_s: float = 0.25
) -> Answer:
    """The result of *waiting*, while the clock moves on."""
    task = asyncio.ensure_future(waiting)
    while not task.done():
        await clock.advance(step_s)
    return await task


async def until(fact: Callable[[], bool]) -> None:
    """Return once *fact* holds. For what has no event."""
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110  the fact has no event
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let tasks run that wait neither for time nor for threads."""
    for _ in range(count):
        await asyncio.sleep(0)
