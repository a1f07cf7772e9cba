"""A ready queue that follows a log, and the sorted list that it is compared with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from eventjobs.attempts.ready_feed import ReadyFeed
from eventjobs.attempts.ready_queue import Answer, ReadyQueue
from eventjobs.domain import decisions
from eventjobs.domain.events import Event, Paused, Resumed
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Rejected
from eventjobs.projections import Views
from eventjobs.projections.fold import Folded, Written
from eventjobs.projections.queue import AGEING_US, WaitingJob
from tests.support.clock import FakeClock
from tests.support.histories import COMMANDS, job_id
from tests.support.memory_log import MemoryLog
from tests.support.view_model import unmet
from tests.support.views import quick_folder, running

#: Jobs of a line in memory, so that most of the backlog of a few jobs is in the table only.
WINDOW = 3
TYPES = ["csv", "render"]


class World:
    """A ready queue that follows a log, and the sorted list that it is compared with."""

    def __init__(self, log: MemoryLog, views: Views, clock: FakeClock) -> None:
        self.log = log
        self.views = views
        self.clock = clock
        self.jobs: dict[str, Job] = {}
        self.paused: set[tuple[str, str]] = set()
        #: ("type", type), ("queue", queue), ("key", key), and (type, key)
        self.full: set[tuple[str, str]] = set()
        self.taken: list[str] = []
        self.offered = 0
        views.listen_to_batches(self._apply)
        views.listen_to_writes(self._move)

    def _apply(self, folded: Folded) -> None:
        self.feed.apply(folded)  # of the newest start

    def _move(self, written: Written) -> None:
        self.feed.move(written)

    async def start(self, window: int = WINDOW) -> None:
        self.taken = []
        self.queue = ReadyQueue(window)
        self.feed = ReadyFeed(self.queue, self.views)
        await self.feed.load()

    async def append(self, event: Event | None, number: str, version: int) -> None:
        if event is not None:
            await self.log.append(number, version, event, actor="tester")
            [recorded] = await self.log.read_job(number, self.log.head - 1)
            if not isinstance(event, Paused | Resumed):
                self.jobs[number] = evolve(self.jobs.get(number), recorded)

    async def follow(self) -> None:
        await self.views.wait_for_position(self.log.head)

    # --- taking

    def answer(self, job: WaitingJob) -> Answer:
        self.offered += 1
        if ("type", job.type) in self.full:
            return "type"
        if ("queue", job.queue) in self.full:
            return "queue"
        if ("key", job.key) in self.full or (job.type, job.key) in self.full:
            return "key"
        return "taken"

    async def take(self, types: list[str], limit: int, *, children: bool = False) -> list[str]:
        taken: list[str] = []

        def offer(job: WaitingJob) -> Answer:
            answer = self.answer(job)
            if answer == "taken":
                taken.append(job.job_id)
            return "last" if len(taken) == limit else answer

        now_us = self.clock.now_us()
        while (window := self.queue.admit_due(now_us)) is not None:
            await self.feed.read(window)
        take = self.queue.take_children if children else self.queue.take
        while (window := take(types, offer)) is not None:
            await self.feed.read(window)
        return taken

    def reference(self, types: list[str], limit: int, *, children: bool = False) -> list[str]:
        jobs = list(self.jobs.values())
        born = {job.job_id: job.born for job in jobs}

        def place(job: Job) -> tuple[int, int]:
            if not children:
                return job.due_us - job.spec.priority * AGEING_US, job.born
            parent = born.get(job.spec.parent or "", 0)
            return (-parent if parent < job.born else 0), job.born  # older than it, as parents are

        due = [
            job
            for job in sorted(jobs, key=place)
            if job.waits and not unmet(job, jobs) and job.due_us <= self.clock.now_us()
            if job.spec.type in types and job.job_id not in self.taken
            if job.spec.parent is not None or not children
            if not self.paused & {("type", job.spec.type), ("queue", job.queue)}
            if self.answer(WaitingJob.of(job)) == "taken"
        ]
        return [job.job_id for job in due[:limit]]

    # --- actions

    async def do_submit(self, number: int, spec: JobSpec) -> None:
        name = job_id(len(self.jobs))
        await self.append(decisions.submit(None, spec), name, 0)

    async def do_change(self, number: int, command: str) -> None:
        if self.jobs:
            job = self.jobs[job_id(number % len(self.jobs))]
            try:
                event = COMMANDS[command](job, self.clock.now_us(), number)
            except Rejected:
                return
            await self.append(event, job.job_id, job.version)

    async def do_pass(self, number: int, _: Any) -> None:
        self.clock.freeze(number)

    async def do_pause(self, number: int, place: tuple[str, str]) -> None:
        if place not in self.paused:
            self.paused.add(place)
            await self.append(Paused(*place, None), job_id(10**6 + self.log.head), 0)

    async def do_resume(self, number: int, place: tuple[str, str]) -> None:
        if place in self.paused:
            self.paused.discard(place)
            await self.append(Resumed(*place), job_id(10**6 + self.log.head), 0)

    async def do_fill(self, number: int, limit: tuple[str, str]) -> None:
        self.full.add(limit)

    async def do_free(self, number: int, limit: tuple[str, str]) -> None:
        if limit in self.full:
            self.full.discard(limit)
            kind, name = limit
            self.queue.free("key" if kind in TYPES else kind, name)

    async def do_take(self, number: int, types: list[str], *, children: bool = False) -> None:
        """The same jobs in the same order; some of them are kept, the others put back."""
        await self.follow()
        limit = 1 + number % 9
        taken = await self.take(types, limit, children=children)
        assert taken == self.reference(types, limit, children=children)
        kept = number % 3
        self.taken += taken[:kept]
        for each in taken[kept:]:
            self.queue.put_back(each)

    async def do_take_children(self, number: int, types: list[str]) -> None:
        await self.do_take(number, types, children=True)

    async def do_put_back(self, number: int, _: Any) -> None:
        await self.follow()
        if self.taken:
            self.queue.put_back(self.taken.pop(number % len(self.taken)))

    async def do_take_meanwhile(self, number: int, types: list[str]) -> None:
        """Take while the views apply what came before; then put back."""
        for each in await self.take(types, 1 + number % 9):
            self.queue.put_back(each)

    async def do_restart(self, number: int, _: Any) -> None:
        await self.follow()
        await self.start()


@asynccontextmanager
async def world(clock: FakeClock, window: int = WINDOW) -> AsyncIterator[World]:
    log = MemoryLog(clock)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            world = World(log, views, clock)
            await world.start(window)
            yield world


def in_memory(queue: ReadyQueue) -> int:
    windows = [queue.later, *queue._children.values()]
    for lines in queue._lines.values():
        windows += [each for line in lines.values() for each in (line.window, *line.lanes.values())]
    return sum(len([*window.jobs()]) for window in windows)
