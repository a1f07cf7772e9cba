"""A reader of simulated streams that checks what it reads, and knows what it must have read."""

import asyncio
from functools import cached_property
from typing import Any

from eventjobs.domain.job import Job, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams.job_filter import JobFilter
from tests.support.simulated_loop import TURN_S, SimulatedTransport
from tests.support.stream_reader import Chunks, Head, Message, Wire, positions, request
from tests.support.stream_world import World


class Watcher:
    """Reads the stream of one filter over many connections, until it has all of it."""

    def __init__(self, world: World, job_filter: JobFilter, *, snapshots: bool) -> None:
        self.world = world
        self.job_filter = job_filter
        self.snapshots = snapshots
        self.start = 0
        self.facts: list[int] = []
        self.states: dict[str, Any] = {}
        self.last_id: str | None = None
        self.hidden = False
        self.ended = False
        self.goodbyes: list[int] = []
        self._path = f"/{len(world.subscriptions)}"
        world.subscriptions.append((job_filter, snapshots))

    async def run(self) -> None:
        rng, log = self.world.rng, self.world.log
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0)
        head = 0
        while not (self.job_filter.ids or frozenset()) <= {each.job_id for each in log.all()}:
            head = await log.wait(head)
        if log.head and rng.random() < 0.5:
            self.start = rng.randint(1, log.head)
            self.last_id = str(self.start)
        ended = False
        while not (
            ended and (self.world.is_closing or (self.world.is_written and self.is_complete))
        ):
            if ended:
                await asyncio.sleep(1000 * TURN_S)
            ended = await self._connect()

    async def _connect(self) -> bool:
        """Read one connection. True if the service ended the stream, or all of it was read."""
        rng = self.world.rng
        path = self._path
        if self.last_id == str(self.start) and rng.random() < 0.5:
            transport = self.world.connect(request(f"{path}?after={self.last_id}"))
        else:
            transport = self.world.connect(request(path, last_id=self.last_id))
        try:
            return await self._receive(transport)
        finally:
            transport.vanish()

    async def _receive(self, transport: SimulatedTransport) -> bool:
        rng = self.world.rng
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += await transport.take(1000)
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
                    assert self.world.is_closing
                    assert 1_000 <= wire.retries[-1] <= 10_000
                    self.goodbyes.append(wire.retries[-1])
                return True
            if self.world.is_written and self.is_complete and wire.beats > 1 and not self._to_end:
                return True
            if rng.random() < 0.01 and not self.world.is_written:
                return False
            if rng.random() < 0.05 and not self.world.is_closing:
                await asyncio.sleep(rng.random() * self.world.slowest_s)
            body = await transport.take(pace)
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
            assert int(message.id) <= job["position"], "the cursor is ahead of the snapshot"
            self.states[job["job_id"]] = job
        elif message.event == "gone":
            self._take_gone(message.json)

    def _take_gone(self, gone: Any) -> None:
        """The job is hidden at that position, and no newer snapshot was read before."""
        id, position = gone["job_id"], gone["position"]
        log = [each for each in self.world.log.all() if each.job_id == id]
        job = fold([each for each in log if each.position <= position])
        assert job is not None
        assert (job.expired_us is not None, job.position) == (True, position)
        before = self.states.pop(id, None)
        assert before is None or before["position"] < position

    def _take_end(self, position: int) -> None:
        """All was read, and that includes the end of each named job."""
        self.ended = True
        assert self.job_filter.ids
        for id in self.job_filter.ids:
            log = [each for each in self.world.log.all() if each.job_id == id]
            job = fold([each for each in log if each.position <= position])
            assert job is not None
            assert job.finished or not self._selects(job)
            if job.position > self.start and self._selects(job):
                if self.snapshots:
                    assert job.expired_us is not None or self.states[id]["status"] == job.status
                else:
                    assert job.position in self.facts

    # --- what must have been read, once nothing more is written

    @property
    def is_complete(self) -> bool:
        return self.missing() is None

    def missing(self) -> str | None:
        return self._missing_states() if self.snapshots else self._missing_events()

    def _missing_events(self) -> str | None:
        wanted = [each.position for each in self._matching]
        if self.hidden:
            wanted = wanted[: len(self.facts)]  # the events of a hidden job are not streamed
        read = self.facts
        assert read == wanted[: len(read)], f"from {self.start}: read {read}, not {wanted}"
        return None if read == wanted else f"read {read}, not {wanted}"

    def _missing_states(self) -> str | None:
        status = self.job_filter.status
        for id in {each.job_id for each in self._matching}:
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
    def _matching(self) -> list[Recorded]:
        return [each for each in self._all if each.position > self.start]

    @cached_property
    def _all(self) -> list[Recorded]:
        ids = {id for id, job in self.world.views.all().items() if self._selects(job)}
        return [each for each in self.world.log.all() if each.job_id in ids]

    @property
    def _to_end(self) -> bool:
        """Whether the stream ends by itself."""
        jobs = self.world.views.all()
        return self.job_filter.ids is not None and all(
            jobs[id].finished or not self._selects(jobs[id]) for id in self.job_filter.ids
        )

    def _selects(self, job: Job) -> bool:
        job_filter = self.job_filter
        return (
            (job_filter.ids is None or job.job_id in job_filter.ids)
            and (job_filter.type is None or job.spec.type in job_filter.type)
            and (job_filter.tag is None or job_filter.tag in job.spec.tags)
        )
