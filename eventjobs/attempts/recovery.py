"""After a restart: what was cut off by it runs again, and what was started before it counts."""

import orjson

from eventjobs.attempts.leases import LeaseMonitor, is_remote
from eventjobs.attempts.limiter import ConcurrencyLimiter
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptStarted
from eventjobs.domain.job import Status
from eventjobs.errors import LogError
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.observability.logging import get_logger
from eventjobs.projections import status
from eventjobs.projections.views import Views


async def recover(
    jobs: Jobs,
    views: Views,
    settlement: OutcomeRecorder,
    leases: LeaseMonitor,
    flow: ConcurrencyLimiter,
    *,
    actor: str,
) -> int:
    """Look at every job that is running, before anything else runs.

    What ran in this service when it stopped is ended; how many that are is returned. What is
    elsewhere, at workers or external services, may live on, and is looked after. All have their
    places in the flow again, until they end.
    """
    await views.reached(jobs.log.head)
    log = get_logger("eventjobs.recovery")
    lost = 0
    for job_id in await views.running():
        try:
            job = await jobs.load(job_id)
            if job is None or job.status != Status.RUNNING:
                continue
            flow.update(job)
            if is_remote(job):
                leases.begin(job)
            else:
                await settlement.record_lost(job, "the service stopped while it ran", actor=actor)
                lost += 1
        except LogError:
            raise
        except Exception as error:
            log.error("not recovered", job_id=job_id, exc_info=error)
    if lost:
        log.warning("attempts lost", jobs=lost)
    return lost


async def load_recent_starts(
    log: EventLog, views: Views, flow: ConcurrencyLimiter, clock: Clock
) -> None:
    """Tell *flow* which jobs were started before this service: a rate holds across a restart.

    Until then no job of a type with a rate is started. How long that takes depends on how much
    is in the log of the longest period that a rate has.
    """
    rates = flow.limits.rates
    now_us, until = clock.now_us(), log.head
    after = await _position_at(log, now_us - max(each.period_s for each in rates.values()) * 10**6)
    ago_us: dict[str, list[int]] = {type: [] for type in rates}
    while after < until:
        batch = await log.read(after, PAGE_MAX)
        after = batch[-1].position
        started = [each for each in batch if isinstance(each.event, AttemptStarted)]
        ids = orjson.dumps([each.job_id for each in started]).decode()
        types = dict(await views.query(status.SELECT_TYPES, ids)) if started else {}
        for each in started:
            # Of a job that the views could not read, no type is known.
            if (of_type := ago_us.get(types.get(each.job_id, ""))) is not None:
                # A wall clock that was set back makes an old start look like one that is to come.
                of_type.append(max(0, now_us - each.at_us))
    flow.load_starts(ago_us)


async def _position_at(log: EventLog, at_us: int) -> int:
    """The position after which events are of *at_us* or later, as far as the wall clock went on."""
    low, high = 0, log.head
    while low < high:
        middle = (low + high) // 2
        [recorded] = await log.read(middle, 1)
        if recorded.at_us < at_us:
            low = middle + 1
        else:
            high = middle
    return low
