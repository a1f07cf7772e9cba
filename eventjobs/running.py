"""What runs jobs, put together as the settings say: in the service, and in a worker elsewhere."""

import os
from pathlib import Path

from eventjobs.breakers import Breakers
from eventjobs.calling import Calls
from eventjobs.desk import Desk
from eventjobs.handlers import Handlers
from eventjobs.processes import Processes
from eventjobs.runner import Runner
from eventjobs.settings import Settings


def calls_of(settings: Settings, breakers: Breakers) -> Calls:
    return Calls(breakers, settings.backoff, settings.store_attempts)


def dispatcher_of(settings: Settings, desk: Desk, handlers: Handlers) -> Runner:
    """For the jobs of one external service: they take no places of the jobs that run here."""
    return Runner(
        desk,
        handlers,
        concurrency=settings.concurrency,
        threads=0,
        grace_s=settings.grace_s,
        progress_interval_s=settings.progress_interval_s,
    )


def runner_of(settings: Settings, desk: Desk, handlers: Handlers, scratch: Path) -> Runner:
    """With processes of its own, whose temporary files are in *scratch*."""
    processes = Processes(
        desk.clock,
        desk.files,
        desk.calls,
        scratch,
        limit=settings.processes or os.cpu_count() or 1,
        jobs_max=settings.process_jobs_max,
        capture_logs=settings.capture_logs,
        grace_s=settings.grace_s,
    )
    return Runner(
        desk,
        handlers,
        concurrency=settings.concurrency,
        threads=settings.threads,
        processes=processes,
        grace_s=settings.grace_s,
        progress_interval_s=settings.progress_interval_s,
        capture_logs=settings.capture_logs,
    )
