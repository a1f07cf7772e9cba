"""Streams in every order: one callback at a time, and which one is drawn, as is the network.

All above the socket is real, HTTP and its flow control included. Below is a transport that moves
a drawn number of bytes at drawn moments. A seed that fails can be run again by its number.
"""

import asyncio
import os
import random
import selectors
from collections.abc import Callable, Coroutine, Iterable
from functools import cached_property
from typing import Any, cast

import pytest
from aiohttp import web

from eventjobs.clock import SystemClock
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job, evolve, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobGone
from eventjobs.http.streams import catch_up, frames, streams
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.streams import Streams
from eventjobs.log import PAGE_MAX
from eventjobs.log.memory import MemoryLog
from eventjobs.projections import JobChange, JobView, Views
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.support.histories import job_id
from tests.support.stream_reader import Chunks, Head, Message, Wire, positions, request
from tests.support.stream_site import change

TURN_S = 0.001
BEAT_S = 0.5
#: After so long nothing is still on its way, unless it is lost.
LONG_S = 600.0
SETTINGS = Settings(heartbeat_s=BEAT_S, stall_s=60, stream_buffer_bytes_max=1024)


class Nothing(selectors.SelectSelector):
    """No file is ever ready: all that happens, happens in the loop."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """Virtual time, and one callback a turn: merely shuffling what is ready finds little."""

    _ready: Any
    _scheduled: Any

    def __init__(self, rng: random.Random) -> None:
        super().__init__(Nothing())
        self._rng = rng
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        self._now_s += TURN_S
        rest: Iterable[Any] = ()
        if not self._ready:
            waiting = [each._when for each in self._scheduled if not each._cancelled]
            assert waiting, "everybody waits for somebody else"
            self._now_s = max(self._now_s, min(waiting))
        elif len(self._ready) > 1:
            # In a fixed order first: who was woken before whom may hang on addresses in a set.
            rest = sorted(self._ready, key=_number)
            drawn = rest.pop(int(self._rng.random() * len(rest)))
            self._ready.clear()
            self._ready.append(drawn)
        super()._run_once()  # type: ignore[misc]
        self._ready.extend(rest)


def _number(handle: Any) -> int:
    """Which task a callback belongs to; tasks are numbered in the order they were made."""
    task = getattr(handle._callback, "__self__", None)
    name = task.get_name() if isinstance(task, asyncio.Task) else ""
    return int(name.removeprefix("Task-")) if name.startswith("Task-") else 0


class Line(asyncio.Transport):
    """A connection as the server has it. What was written waits here until the client takes it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._unsent = bytearray()
        self._high, self._low = 65_536, 16_384
        self._paused = self._closing = self._lost = self._closed = False
        self._more = asyncio.Event()
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high, self._low = high, high // 4

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if self._closed:
            raise RuntimeError("the handler is closed")  # as uvloop does
        if self._closing:
            return
        self._unsent += data
        self._more.set()
        if len(self._unsent) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        self._closing = True
        self._more.set()
        if not self._unsent:
            self._lose(None)

    def abort(self) -> None:
        self._unsent.clear()
        self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            asyncio.get_running_loop().call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        self._closed = True
        self._protocol.connection_lost(error)

    # --- the client's end

    async def take(self, count: int) -> bytes:
        """Up to so many bytes; none at the end."""
        while not self._unsent and not self._closing:
            self._more.clear()
            await self._more.wait()
        taken = bytes(self._unsent[:count])
        del self._unsent[:count]
        if self._paused and len(self._unsent) <= self._low and not self._closing:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unsent:
            self._lose(None)
        return taken

    def vanish(self) -> None:
        self._unsent.clear()
        self._closing = True
        self._more.set()
        self._lose(ConnectionResetError())


class SlowLog(MemoryLog):
    """Reads take a while, and pages are as short as they may be."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        await pause(self._rng)
        page = await super().read(after, min(limit, self._rng.randint(1, 9)))
        await pause(self._rng)
        return page

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        await pause(self._rng)
        page = await super().read_job(job_id, after, limit)
        await pause(self._rng)
        return page

    def all(self) -> list[Recorded]:
        return self._tail.since(0, self.head) or []


class SimViews:
    """The jobs as the log has them, a while later; the part of Views that streams use."""

    def __init__(self, log: SlowLog, rng: random.Random) -> None:
        self.position = 0
        self.failing: str | None = None
        self._events = log
        self._rng = rng
        self._jobs: dict[str, Job] = {}
        self._listeners: list[Callable[[list[JobChange]], object]] = []

    def listen(self, listener: Callable[[list[JobChange]], object]) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        while True:
            await self._events.wait(self.position)
            if self._rng.random() < 0.2:
                await asyncio.sleep(self._rng.random() * 0.1)
            batch = await self._events.read(self.position)
            touched: dict[str, JobChange] = {}
            for each in batch:
                job = self._jobs.get(each.job_id)
                self._jobs[each.job_id] = after = evolve(job, each)
                told = touched.setdefault(each.job_id, JobChange(job, after, None, None))
                told.after = after
                told.events.append(each)
            self.position = batch[-1].position
            for listener in self._listeners:
                listener(list(touched.values()))

    async def wait_for_position(self, position: int) -> None:
        while self.position < position:
            await self._events.wait(self.position)
            await asyncio.sleep(TURN_S)

    def cached_job(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def all(self) -> dict[str, Job]:
        return self._jobs

    async def job(self, job_id: str) -> JobView | None:
        await pause(self._rng)
        job = self._jobs.get(job_id)
        await pause(self._rng)
        return None if job is None else JobView(job, None, None)

    async def jobs(
        self, filters: dict[str, Any], *, order: str, cursor: int | None, limit: int
    ) -> list[JobView]:
        assert (order, cursor) == ("newest", None)
        await pause(self._rng)
        found = [
            JobView(job, None, None)
            for job in sorted(self._jobs.values(), key=lambda job: -job.born)
            if job.expired_us is None
            and (filters["type"] is None or job.spec.type in filters["type"])
            and (filters["status"] is None or job.status in filters["status"])
            and (filters["tag"] is None or filters["tag"] in job.spec.tags)
        ][:limit]
        await pause(self._rng)
        return found


async def pause(rng: random.Random) -> None:
    for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
        await asyncio.sleep(0)


class World:
    """A service's streams, and those who write and watch."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.log = SlowLog(rng)
        self.jobs = Jobs(self.log)
        self.views = SimViews(self.log, rng)
        self.written = self.closing = False
        self.slowest_s = 1.0
        self.settings = SETTINGS
        self.clock = SystemClock()
        self.snapshots = Snapshots(cast(Views, self.views))
        self.streams = Streams(cast(Service, self), self.snapshots)
        self.watchers: list[Watcher] = []
        self.errors: list[Exception] = []
        self._server = web.Server(self._serve, access_log=None)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        watcher = self.watchers[int(request.path[1:])]
        open = self.streams.snapshots if watcher.snapshots else self.streams.events
        after = int(request.query["after"]) if "after" in request.query else None
        try:
            return await open(cast(web.Request, request), watcher.selection, after)
        except JobGone:
            return web.Response(status=410)
        except Exception as error:
            self.errors.append(error)
            raise

    def connect(self, sent: bytes) -> Line:
        protocol = self._server()
        line = Line(protocol)
        protocol.data_received(sent)
        return line

    async def write(self, steps: int) -> None:
        """Change some job again and again, mostly in the way jobs change."""
        for _ in range(steps):
            await change(self.jobs, self.rng, self.rng.randrange(4))
            await pause(self.rng)
            if self.rng.random() < 0.05:
                await asyncio.sleep(self.rng.random())

    async def submit_all(self) -> None:
        for number in range(4):
            if await self.jobs.load(job_id(number)) is None:
                await change(self.jobs, self.rng, number)


SELECTIONS = [
    JobFilter(),
    JobFilter(ids=frozenset({job_id(0)})),
    JobFilter(ids=frozenset({job_id(1)})),
    JobFilter(ids=frozenset({job_id(0), job_id(1), job_id(2)})),
    JobFilter(type=frozenset({"a"})),
    JobFilter(tag="t"),
    JobFilter(ids=frozenset({job_id(1), job_id(2)}), type=frozenset({"a"})),
]
FINISHED = JobFilter(status=frozenset({"completed", "failed"}))


class Watcher:
    """Reads one selection over as many connections as it takes, until it has seen the end of it."""

    def __init__(self, world: World, selection: JobFilter, *, snapshots: bool) -> None:
        self.world = world
        self.selection = selection
        self.snapshots = snapshots
        self.start = 0
        self.facts: list[int] = []
        self.states: dict[str, Any] = {}
        self.last_id: str | None = None
        self.hidden = False
        self.ended = False
        self.goodbyes: list[int] = []
        self._path = f"/{len(world.watchers)}"
        world.watchers.append(self)

    async def run(self) -> None:
        rng, log = self.world.rng, self.world.log
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0)
        head = 0
        while not (self.selection.ids or frozenset()) <= {each.job_id for each in log.all()}:
            head = await log.wait(head)
        if log.head and rng.random() < 0.5:
            self.start = rng.randint(1, log.head)
            self.last_id = str(self.start)
        ended = False
        while not (ended and (self.world.closing or (self.world.written and self.complete))):
            if ended:
                await asyncio.sleep(1000 * TURN_S)
            ended = await self._connect()

    async def _connect(self) -> bool:
        """Read one connection; whether the service said that there is no more for now."""
        rng = self.world.rng
        path = self._path
        if self.last_id == str(self.start) and rng.random() < 0.5:
            line = self.world.connect(request(f"{path}?after={self.last_id}"))
        else:
            line = self.world.connect(request(path, last_id=self.last_id))
        try:
            return await self._receive(line)
        finally:
            line.vanish()

    async def _receive(self, line: Line) -> bool:
        rng = self.world.rng
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += await line.take(1000)
        head, _, body = raw.partition(b"\r\n\r\n")
        status = Head.parse(head + b"\r\n\r\n").status
        if status == 410:
            self.hidden = True
        if status in {204, 410}:
            return True
        assert status == 200
        wire, chunks = Wire(self.last_id or ""), Chunks()
        self.ended = False
        pace = rng.choice((9, 90, 10**6))
        while True:
            messages = wire.feed(chunks.feed(body))
            for each in messages:
                self._take_in(each)
            if wire.last_id:
                self.last_id = wire.last_id
            if chunks.ended:
                if not self.ended:
                    assert self.world.closing
                    assert 1_000 <= wire.retries[-1] <= 10_000
                    self.goodbyes.append(wire.retries[-1])
                return True
            if self.world.written and self.complete and wire.beats > 1 and not self._to_end:
                return True
            if rng.random() < 0.01 and not self.world.written:
                return False
            if rng.random() < 0.05 and not self.world.closing:
                await asyncio.sleep(rng.random() * self.world.slowest_s)
            body = await line.take(pace)
            assert body, "the stream was cut off"

    def _take_in(self, message: Message) -> None:
        assert not self.ended, "something after the end"
        assert message.event in {"event", "job", "gone", "end"}
        if message.event == "end":
            self._take_end(int(message.id))
        if message.event == "event":
            self.facts += positions([message])
        elif message.event == "job":
            job = message.json
            before = self.states.get(job["job_id"], job)
            assert before["position"] <= job["position"], "an older state after a newer one"
            assert int(message.id) <= job["position"], "the cursor is ahead of what was told"
            self.states[job["job_id"]] = job
        elif message.event == "gone":
            self._take_gone(message.json)

    def _take_gone(self, told: Any) -> None:
        """It is hidden by then, and was not told to be something newer."""
        id, position = told["job_id"], told["position"]
        log = [each for each in self.world.log.all() if each.job_id == id]
        job = fold([each for each in log if each.position <= position])
        assert job is not None
        assert (job.expired_us is not None, job.position) == (True, position)
        before = self.states.pop(id, None)
        assert before is None or before["position"] < position

    def _take_end(self, position: int) -> None:
        """All of it was told, and that includes how each of the jobs ended."""
        self.ended = True
        assert self.selection.ids
        for id in self.selection.ids:
            log = [each for each in self.world.log.all() if each.job_id == id]
            job = fold([each for each in log if each.position <= position])
            assert job is not None
            assert job.finished or not self._selects(job)
            if job.position > self.start and self._selects(job):
                if self.snapshots:
                    assert job.expired_us is not None or self.states[id]["status"] == job.status
                else:
                    assert job.position in self.facts

    # --- what it has to have seen, once nothing more is written

    @property
    def complete(self) -> bool:
        return self.lacks() is None

    def lacks(self) -> str | None:
        return self._lacks_states() if self.snapshots else self._lacks_facts()

    def _lacks_facts(self) -> str | None:
        wanted = [each.position for each in self._wanted]
        if self.hidden:
            wanted = wanted[: len(self.facts)]  # nobody is told of it any more
        read = self.facts
        assert read == wanted[: len(read)], f"from {self.start}: read {read}, not {wanted}"
        return None if read == wanted else f"read {read}, not {wanted}"

    def _lacks_states(self) -> str | None:
        status = self.selection.status
        for id in {each.job_id for each in self._wanted}:
            job = self.world.views.cached_job(id)
            assert job is not None
            seen = self.states.get(id)
            if job.expired_us is not None:
                listed = seen is not None and (status is None or seen["status"] in status)
                if listed and not self.hidden:  # else it was answered 410
                    return f"did not see that {id} has gone"
                continue
            if status is not None and job.status not in status:
                if seen is not None and seen["status"] in status:
                    return f"did not see that {id} has left"
            elif seen is None or seen["position"] < job.position:
                return f"saw {seen}, not {job}"
            else:
                assert (seen["version"], seen["status"]) == (job.version, job.status)
        assert set(self.states) <= {each.job_id for each in self._all}
        return None

    @cached_property
    def _wanted(self) -> list[Recorded]:
        return [each for each in self._all if each.position > self.start]

    @cached_property
    def _all(self) -> list[Recorded]:
        ids = {id for id, job in self.world.views.all().items() if self._selects(job)}
        return [each for each in self.world.log.all() if each.job_id in ids]

    @property
    def _to_end(self) -> bool:
        """Whether a stream of it ends by itself."""
        jobs = self.world.views.all()
        return self.selection.ids is not None and all(
            jobs[id].finished or not self._selects(jobs[id]) for id in self.selection.ids
        )

    def _selects(self, job: Job) -> bool:
        selection = self.selection
        return (
            (selection.ids is None or job.job_id in selection.ids)
            and (selection.type is None or job.spec.type in selection.type)
            and (selection.tag is None or selection.tag in job.spec.tags)
        )


def simulate(seed: int, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    rng = random.Random(seed)
    random.seed(seed)
    loop = SimLoop(rng)

    async def run() -> None:
        world = World(rng)
        views = asyncio.create_task(world.views.run())
        try:
            async with asyncio.timeout(LONG_S):
                await scenario(world)
                await world.streams.close()
        finally:
            views.cancel()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            _, late = await asyncio.wait(left, timeout=1)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)
        assert not late, "a task is left"
        assert not world.errors

    try:
        loop.run_until_complete(run())
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        loop.close()


async def everybody(world: World, selections: list[JobFilter], *, snapshots: bool) -> None:
    rng = world.rng
    watchers = [
        Watcher(world, rng.choice(selections), snapshots=snapshots)
        for _ in range(rng.randint(2, 5))
    ]
    try:
        async with asyncio.timeout(LONG_S / 2), asyncio.TaskGroup() as group:
            for each in watchers:
                group.create_task(each.run())
            await asyncio.gather(world.write(25), world.write(25))
            await world.submit_all()
            await world.views.wait_for_position(world.log.head)
            world.written = True
    except TimeoutError as error:
        raise AssertionError([(each.selection, each.lacks()) for each in watchers]) from error


async def all_facts(world: World) -> None:
    await everybody(world, SELECTIONS, snapshots=False)


async def all_states(world: World) -> None:
    await everybody(world, [*SELECTIONS, FINISHED], snapshots=True)


async def all_closed(world: World) -> None:
    """The service stops while everybody is in the middle of something."""
    rng, loop = world.rng, asyncio.get_running_loop()
    world.slowest_s = 0.1
    await world.submit_all()
    watchers = [
        Watcher(world, rng.choice(SELECTIONS), snapshots=rng.random() < 0.5) for _ in range(4)
    ]
    async with asyncio.timeout(LONG_S / 2), asyncio.TaskGroup() as group:
        for each in watchers:
            group.create_task(each.run())
        writing = group.create_task(world.write(50))
        await asyncio.sleep(rng.random() * 0.7)
        world.closing = True
        began_s = loop.time()
        await world.streams.close()
        assert loop.time() - began_s < streams.GOODBYE_S, "somebody did not go by himself"
        assert len(world.streams) == 0
        writing.cancel()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "PAGE_MAX", 4)
    monkeypatch.setattr(catch_up, "WRITE_BYTES", 2000)
    monkeypatch.setattr(frames, "WRITE_BYTES", 2000)


#: For a longer look: SIMULATIONS=10000 pytest tests/campaigns/test_stream_simulation.py
SEEDS = range(int(os.environ.get("SIMULATIONS", "150")))


def test_facts_are_neither_missed_nor_repeated_whatever_happens_first() -> None:
    for seed in SEEDS:
        simulate(seed, all_facts)


def test_the_newest_state_of_each_job_arrives_whatever_happens_first() -> None:
    for seed in SEEDS:
        simulate(seed, all_states)


def test_every_stream_is_told_goodbye_whatever_it_is_doing() -> None:
    for seed in SEEDS:
        simulate(seed, all_closed)
