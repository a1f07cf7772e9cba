"""Cancelling what another job takes along: dependents of a failed one, children of a cancelled one.

Which jobs those are, the views know at any time. So nothing is forgotten when the service stops
between one job's end and its dependents', and what this does may be done twice.
"""

import asyncio

import structlog

from eventjobs.clock import sleep
from eventjobs.errors import LogError, Rejected
from eventjobs.jobs import Jobs
from projections import Doom, Views
from projections.touched import Touched

#: Who is told to have done it.
ACTOR = "service"
#: Jobs cancelled at one time.
PAGE = 200


class Cascade:
    """Made before anything runs; *run* goes on until it is cancelled."""

    def __init__(self, jobs: Jobs, views: Views) -> None:
        self._jobs = jobs
        self._views = views
        self._news = asyncio.Event()
        self._log = structlog.get_logger("eventjobs.cascade")
        views.listen(self._noticed)

    async def run(self) -> None:
        while True:
            self._news.clear()
            doomed = await self._views.doomed(PAGE)
            if not doomed:
                await self._news.wait()
                continue
            # A job may be doomed by several others; the first is reason enough.
            reasons = {each.job_id: each for each in reversed(doomed)}
            await asyncio.gather(*map(self._cancel, reasons.values()))
            await self._views.reached(self._jobs.log.head)

    async def _cancel(self, doom: Doom) -> None:
        try:
            await self._jobs.cancel(doom.job_id, reason(doom), actor=ACTOR)
        except Rejected:
            pass  # it ended meanwhile; the views will show it by then
        except LogError as error:
            self._log.warning("cancelling waits", job_id=doom.job_id, error=error.code)
            await sleep(self._jobs.clock, 1.0)  # it is still doomed, and its turn comes again

    def _noticed(self, touched: list[Touched]) -> None:
        # Few jobs have to do with others, and asking costs little: no need to know exactly.
        for each in touched:
            job, spec = each.after, each.after.spec
            ends_badly = job.cancel_requested_us is not None or job.error is not None
            if ends_badly or spec.after or spec.parent is not None:
                self._news.set()
                return


def reason(doom: Doom) -> str:
    if doom.kind == "child":
        return f"its parent {doom.other} was cancelled"
    how = "failed" if doom.outcome == "failed" else "was cancelled"
    return f"it waited for {doom.other}, which {how}"
