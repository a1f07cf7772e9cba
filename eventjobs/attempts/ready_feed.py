"""Feeds the ready queue: with each batch that the views fold, and from their table."""

import asyncio
from collections.abc import Mapping
from typing import Any

from eventjobs.attempts.ready_queue import ReadyQueue
from eventjobs.attempts.ready_window import ReadyWindow
from eventjobs.projections import JobChange, Views
from eventjobs.projections.fold import Folded, Written
from eventjobs.projections.pauses import SELECT_PAUSES, Pause
from eventjobs.projections.queue import (
    SELECT_CHILDREN,
    SELECT_LANE,
    SELECT_LATER,
    SELECT_LINE,
    SELECT_LINES,
    WaitingJob,
    has_relatives,
)

#: By kind of window: the query of its next jobs.
_QUERIES = {
    "line": SELECT_LINE,
    "lane": SELECT_LANE,
    "children": SELECT_CHILDREN,
    "later": SELECT_LATER,
}


class ReadyFeed:
    """Keeps *queue* as of *position*, the present of the views."""

    def __init__(self, queue: ReadyQueue, views: Views) -> None:
        self.position = views.present_position
        self._queue = queue
        self._views = views
        self._reading = asyncio.Lock()
        #: What was paused or resumed since the start, until *load* has read what was before.
        self._early_pauses: dict[tuple[str, str], Pause | None] | None = {}

    async def load(self) -> None:
        """Find out what the table has. The jobs themselves are read when they are needed."""
        await self._views.wait_for_position(self.position)
        pauses = [Pause(*row) for row in await self._views.query(SELECT_PAUSES)]
        lines = [(type, queue) for type, queue in await self._views.query(SELECT_LINES)]
        self._queue.load(lines)
        early, self._early_pauses = self._early_pauses or {}, None
        self._apply_pauses({(pause.kind, pause.name): pause for pause in pauses} | early)

    def apply(self, folded: Folded) -> None:
        """Bring the queue to the position of the present, after the next batch."""
        self.position = max(self.position, self._views.present_position)
        for change in folded.changes:
            self._apply_change(change)
        if self._early_pauses is None:
            self._apply_pauses(folded.pauses)
        else:
            self._early_pauses.update(folded.pauses)

    def move(self, written: Written) -> None:
        """Add the jobs that wait for no other one any more; remove those that do."""
        for waits, job in written.moved:
            self._queue.remove(job)
            if not waits:
                self._queue.put(job)

    def _apply_pauses(self, pauses: Mapping[tuple[str, str], Pause | None]) -> None:
        for (kind, name), pause in pauses.items():
            if pause is None:
                self._queue.resume(kind, name)
            else:
                self._queue.pause(kind, name)

    def _apply_change(self, change: JobChange) -> None:
        before, job = change.before, change.after
        if before is not None and before.waits:
            self._queue.remove(WaitingJob.of(before))
        # A job with relatives is among the moved ones: its place depends on them.
        if job.waits and not has_relatives(job):
            self._queue.put(WaitingJob.of(job))

    async def read(self, window: ReadyWindow) -> None:
        """Read the next jobs of *window* from the table."""
        horizon = window.horizon
        async with self._reading:
            if window.horizon != horizon or horizon is None:
                return  # another claimer has read them
            page: list[WaitingJob] | None = None
            begin, limit = window.begin_read(), window.size
            try:
                # The table may be behind, after the file of the views was lost.
                await self._views.wait_for_position(self.position)
                kind, *names = window.place
                parameters: list[Any] = [*names, *begin]
                if window is not self._queue.later:
                    parameters.append(self._queue.admitted_until_us)
                rows = await self._views.query(_QUERIES[kind], *parameters, limit)
                page = [WaitingJob(*row) for row in rows]
            finally:
                window.end_read(begin, page, limit, self._queue.kept_aside())
