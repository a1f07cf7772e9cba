"""Feeds: what subscribers miss, and then each new event or snapshot, until a stream ends."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from structlog.contextvars import bind_contextvars

from eventjobs.clock import sleep
from eventjobs.errors import EventjobsError, JobUnreadable
from eventjobs.http import problem
from eventjobs.http.streams.broadcast import EventBroadcaster, SnapshotBroadcaster
from eventjobs.http.streams.catch_up import CatchUp
from eventjobs.http.streams.frames import Frames, end_frame, retry_later_frame
from eventjobs.http.streams.subscriber import Subscriber
from eventjobs.observability.logging import get_logger
from eventjobs.service import Service

#: Seconds after which a broadcaster that has failed runs again.
AGAIN_S = 1.0


class Feed:
    """Events, or snapshots.

    A subscriber has a task while it catches up. Then it is live, and the broadcaster writes to it,
    until it is detached and catches up again.
    """

    def __init__(
        self,
        service: Service,
        broadcaster: EventBroadcaster | SnapshotBroadcaster,
        catch_up: CatchUp,
        turns: asyncio.Semaphore,
        on_end: Callable[[Subscriber], None],
    ) -> None:
        self.broadcaster = broadcaster
        self._service = service
        self._catch_up = catch_up
        #: Bounds the subscribers that read what they miss at a time.
        self._turns = turns
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._log = get_logger("eventjobs.stream")

    async def run(self) -> None:
        """Run the broadcaster, again after it has failed."""
        while True:
            try:
                await self.broadcaster.run()
            except Exception as error:  # noqa: BLE001 without it, its streams would be silent
                hub = type(self.broadcaster).__name__
                self._log.error("streams interrupted", hub=hub, exc_info=error)
            self.broadcaster.detach_all("behind")  # each subscriber reads what it misses
            await sleep(self._service.clock, AGAIN_S)

    def close(self) -> None:
        """End every stream. Their clients reconnect, each after a delay of its own."""
        self._closing = True
        self.broadcaster.detach_all("shutdown")

    def serve(self, subscriber: Subscriber) -> None:
        """Write what the subscriber misses, until it is live or its stream ends."""
        if self._misses_nothing(subscriber):
            self.broadcaster.join(subscriber)
            return
        task = asyncio.create_task(self._serve(subscriber))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def remove(self, subscriber: Subscriber) -> None:
        """Drop a subscriber whose stream has ended. Harmless to repeat."""
        self.broadcaster.leave(subscriber)
        self._on_end(subscriber)

    async def _serve(self, subscriber: Subscriber) -> None:
        bind_contextvars(request_id=subscriber.request_id)
        try:
            if await self._catch_up_and_join(subscriber):
                subscriber.end()
                self.remove(subscriber)
        except TimeoutError as error:
            self._log.info("reader dropped", error=str(error))
            self._cut_off(subscriber)
        except Exception as error:  # noqa: BLE001 only a broken connection shows that it is cut off
            if not isinstance(problem.translate(error), EventjobsError):
                self._log.error("unexpected error", exc_info=error)
            self._cut_off(subscriber)

    def _cut_off(self, subscriber: Subscriber) -> None:
        subscriber.abort()
        self.remove(subscriber)

    async def _catch_up_and_join(self, subscriber: Subscriber) -> bool:
        """Write what the subscriber misses, and let it join the broadcaster. Returns whether the
        stream has ended instead.
        """
        await self._drain(subscriber)
        checked = -1  # the position at which the named jobs had not ended
        while not subscriber.is_gone:
            async with aclosing(self._catch_up.frames(subscriber)) as batches:
                while (frames := await self._next(batches, subscriber)) is not None:
                    if frames:
                        subscriber.write(frames)
                        await self._drain(subscriber)
            if subscriber.is_revoked:
                return True
            if self._closing:
                subscriber.write(Frames(retry_later_frame()))
                return True
            if checked == subscriber.position:
                # No await since the catch-up found nothing: there is no gap.
                self.broadcaster.join(subscriber)
                return False
            if await self._is_finished(subscriber):
                subscriber.write(Frames(end_frame(subscriber.position)))
                await self._drain(subscriber)
                return True
            checked = subscriber.position
        return False

    async def _next(
        self, batches: AsyncGenerator[Frames, None], subscriber: Subscriber
    ) -> Frames | None:
        """The next frames of a catch-up, in its turn; None at its end, or when it must not go on.

        Nothing is awaited after the catch-up has reached its end.
        """
        if subscriber.position < self._catch_up.head and not self._must_end(subscriber):
            async with self._turns:
                await asyncio.sleep(0)  # other tasks run between two batches
                return None if self._must_end(subscriber) else await anext(batches, None)
        return None if self._must_end(subscriber) else await anext(batches, None)

    def _misses_nothing(self, subscriber: Subscriber) -> bool:
        """Whether it can be live at once. A stream of named jobs may have ended."""
        return (
            subscriber.position >= self._catch_up.head
            and subscriber.job_filter.ids is None
            and not (subscriber.is_paused or self._must_end(subscriber))
        )

    def _must_end(self, subscriber: Subscriber) -> bool:
        return self._closing or subscriber.is_revoked or subscriber.is_gone

    async def _drain(self, subscriber: Subscriber) -> None:
        await subscriber.drain(self._service.clock, self._service.settings.stall_s)

    async def _is_finished(self, subscriber: Subscriber) -> bool:
        """Whether all named jobs have ended, and their last events were written."""
        if subscriber.job_filter.ids is None:
            return False
        for job_id in sorted(subscriber.job_filter.ids):
            try:
                job = await self._service.jobs.current(job_id)
            except JobUnreadable:
                continue  # such a job has no further events
            if job is not None and not (job.is_over and job.position <= subscriber.position):
                return False
        return True
