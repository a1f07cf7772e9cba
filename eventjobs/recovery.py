"""After a crash: ending the attempts that were cut off with it, so that they run again."""

import structlog

from eventjobs.job import Status
from eventjobs.jobs import Jobs
from eventjobs.settlement import Settlement
from projections import Views


async def recover(jobs: Jobs, views: Views, settlement: Settlement, *, actor: str) -> int:
    """End what ran in this service when it stopped, and return how many; before anything runs.

    Attempts of workers elsewhere may live on: they are left to their leases, and those that an
    external service has taken on to that service.
    """
    await views.reached(jobs.log.head)
    lost = 0
    for job_id in await views.running():
        job = await jobs.load(job_id)
        if job is None or job.status != Status.RUNNING:
            continue
        if job.lease_s is None and job.silence_s is None:
            await settlement.lost(job, "the service stopped while it ran", actor=actor)
            lost += 1
    if lost:
        structlog.get_logger("eventjobs.recovery").warning("attempts lost", jobs=lost)
    return lost
