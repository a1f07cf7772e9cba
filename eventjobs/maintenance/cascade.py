"""Cancelling what another job takes along: dependents of a failed one, children of a cancelled one.

Which jobs those are, the views know at any time. So nothing is forgotten when the service stops
between one job's end and its dependents', and what this does may be done twice.
"""

import asyncio
from contextlib import suppress

from eventjobs.clock import timeout
from eventjobs.commands.jobs import Jobs
from eventjobs.errors import JobUnreadable, Rejected
from eventjobs.projections import JobChange, Views
from eventjobs.projections.dependencies import CancelCause
from eventjobs.supervision import AGAIN_S, Isolation

#: Who is told to have done it.
ACTOR = "service"
#: Jobs cancelled at one time.
PAGE = 200


class CascadeCanceller:
    """Made before anything runs; *run* goes on until it is cancelled."""

    def __init__(self, jobs: Jobs, views: Views) -> None:
        self._jobs = jobs
        self._views = views
        self._wake = asyncio.Event()
        self._isolation = Isolation(jobs.clock, "eventjobs.cascade", "cancelling")
        views.listen(self._on_changes)

    async def run(self) -> None:
        while True:
            self._wake.clear()
            # Those that cannot be cancelled now must not hide the ones behind them.
            doomed = await self._views.jobs_to_cancel(PAGE + len(self._isolation))
            # A job may be doomed by several others; the first is reason enough.
            reasons = {each.job_id: each for each in reversed(doomed)}
            tried = [each for each in reasons.values() if self._isolation.may_run(each.job_id)]
            if not tried:
                with suppress(TimeoutError):
                    async with timeout(self._jobs.clock, AGAIN_S if doomed else None):
                        await self._wake.wait()
                continue
            await asyncio.gather(*map(self._cancel, tried))
            await self._views.reached(self._jobs.log.head)

    async def _cancel(self, doom: CancelCause) -> None:
        async def cancel() -> None:
            try:
                await self._jobs.cancel(doom.job_id, reason(doom), actor=ACTOR)
            except JobUnreadable:
                raise  # the views do not know, and would name it again at once
            except Rejected:
                pass  # it ended meanwhile, as the views are about to show

        await self._isolation.attempt(doom.job_id, cancel(), job_id=doom.job_id)

    def _on_changes(self, touched: list[JobChange]) -> None:
        # Few jobs have to do with others, and asking costs little: no need to know exactly.
        for each in touched:
            job, spec = each.after, each.after.spec
            ends_badly = job.cancel_requested_us is not None or job.error is not None
            if ends_badly or spec.after or spec.parent is not None:
                self._wake.set()
                return


def reason(doom: CancelCause) -> str:
    if doom.kind == "child":
        return f"its parent {doom.other} was cancelled"
    how = "failed" if doom.outcome == "failed" else "was cancelled"
    return f"it waited for {doom.other}, which {how}"
