"""Recovery after a restart: interrupted jobs are queued again, and rates count earlier starts."""

import orjson

from eventjobs.attempts.leases import LeaseMonitor, is_remote
from eventjobs.attempts.limiter import ConcurrencyLimiter
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptStarted
from eventjobs.errors import LogError
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views, status


async def recover(
    jobs: Jobs,
    views: Views,
    recorder: OutcomeRecorder,
    leases: LeaseMonitor,
    limiter: ConcurrencyLimiter,
    *,
    actor: str,
) -> None:
    """Recover the running jobs, before any job is claimed.

    An attempt that ran in this service is recorded as lost. An attempt of a remote worker or an
    external service may go on, and gets a lease. Each running job counts against its limits.
    """
    await views.wait_for_position(jobs.log.head)
    log = get_logger("eventjobs.recovery")
    lost = 0
    for job_id in await views.running():
        try:
            job = await jobs.load(job_id)
            if job is None or not job.runs:
                continue
            limiter.update(job)
            if is_remote(job):
                leases.begin(job)
            else:
                await recorder.record_lost(job, "the service stopped while it ran", actor=actor)
                lost += 1
        except LogError:
            raise
        except Exception as error:
            log.error("not recovered", job_id=job_id, exc_info=error)
    if lost:
        log.warning("attempts lost", jobs=lost)


async def load_recent_starts(
    log: EventLog, views: Views, limiter: ConcurrencyLimiter, clock: Clock
) -> None:
    """Load the starts from before this service into *limiter*: a rate holds across a restart.

    Before that no job of a type with a rate is started. The time this takes grows with the number
    of events in the longest period of any rate.
    """
    rates = limiter.limits.rates
    now_us, until = clock.now_us(), log.head
    period_us = max(rate.period_s for rate in rates.values()) * 10**6
    after = await _position_at(log, now_us - period_us)
    ago_us: dict[str, list[int]] = {type: [] for type in rates}
    while after < until:
        batch = await log.read(after, PAGE_MAX)
        after = batch[-1].position
        starts = [each for each in batch if isinstance(each.event, AttemptStarted)]
        ids = orjson.dumps([each.job_id for each in starts]).decode()
        types = dict(await views.query(status.SELECT_TYPES, ids)) if starts else {}
        for start in starts:
            # The views know no type of a job that they could not read.
            if (of_type := ago_us.get(types.get(start.job_id, ""))) is not None:
                # After the wall clock was set back, an old start looks like one in the future.
                of_type.append(max(0, now_us - start.at_us))
    limiter.load_starts(ago_us)


async def _position_at(log: EventLog, at_us: int) -> int:
    """The position before the first event of *at_us* or later, by binary search. Exact as long as
    the recorded times increase.
    """
    low, high = 0, log.head
    while low < high:
        middle = (low + high) // 2
        [recorded] = await log.read(middle, 1)
        if recorded.at_us < at_us:
            low = middle + 1
        else:
            high = middle
    return low
