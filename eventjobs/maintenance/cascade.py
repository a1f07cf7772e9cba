"""Cascading cancels: of dependents of a failed or cancelled job, and children of a cancelled one.

The views show at any time which jobs these are. So none is forgotten when the service stops between
the end of a job and that of its dependents, and cancelling twice does no harm.
"""

import asyncio
from contextlib import suppress

from eventjobs.clock import timeout
from eventjobs.commands.jobs import Jobs
from eventjobs.errors import JobUnreadable, Rejected
from eventjobs.projections import JobChange, Views
from eventjobs.projections.dependencies import CancelCause
from eventjobs.supervision import AGAIN_S, Isolation

#: The actor of the cancels in the log.
ACTOR = "service"
#: Jobs cancelled at a time.
PAGE = 200


class CascadeCanceller:
    """Cancels the jobs that the views name. To be created before any job runs."""

    def __init__(self, jobs: Jobs, views: Views) -> None:
        self._jobs = jobs
        self._views = views
        self._wake = asyncio.Event()
        self._isolation = Isolation(jobs.clock, "eventjobs.cascade", "cancelling")
        views.listen(self._on_changes)

    async def run(self) -> None:
        """Cancel jobs until cancelled."""
        while True:
            self._wake.clear()
            await self._views.wait_for_position(self._jobs.log.head)
            # Jobs that cannot be cancelled now must not take the places of those behind them.
            causes = await self._views.jobs_to_cancel(PAGE + len(self._isolation))
            # A job may have several causes. The first one becomes its reason.
            first = {cause.job_id: cause for cause in reversed(causes)}
            ready = [cause for cause in first.values() if self._isolation.may_run(cause.job_id)]
            if not ready:
                with suppress(TimeoutError):
                    async with timeout(self._jobs.clock, AGAIN_S if causes else None):
                        await self._wake.wait()
                continue
            await asyncio.gather(*map(self._cancel, ready))

    async def _cancel(self, cause: CancelCause) -> None:
        async def cancel() -> None:
            try:
                await self._jobs.cancel(cause.job_id, reason(cause), actor=ACTOR)
            except JobUnreadable:
                raise  # the views would name it again at once
            except Rejected:
                pass  # it has ended, as the views are about to show

        await self._isolation.attempt(cause.job_id, cancel(), job_id=cause.job_id)

    def _on_changes(self, changes: list[JobChange]) -> None:
        # A query too many costs little: few jobs have dependencies or a parent.
        for change in changes:
            job, spec = change.after, change.after.spec
            ends_badly = job.cancel_requested_us is not None or job.error is not None
            if ends_badly or spec.after or spec.parent is not None:
                self._wake.set()
                return


def reason(cause: CancelCause) -> str:
    """The reason in the history of the cancelled job."""
    if cause.kind == "child":
        return f"its parent {cause.other} was cancelled"
    how = "failed" if cause.outcome == "failed" else "was cancelled"
    return f"it waited for {cause.other}, which {how}"
