"""What runs jobs, put together as the settings say: in the service, and in a worker elsewhere."""

import os
from pathlib import Path

from eventjobs.execution.processes.pool import ProcessPool
from eventjobs.execution.runner import Runner
from eventjobs.execution.source import JobSource
from eventjobs.handlers.breaker_state import Breakers
from eventjobs.handlers.caller import CallPolicy
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.settings import Settings


def build_call_policy(settings: Settings, breakers: Breakers) -> CallPolicy:
    return CallPolicy(breakers, settings.backoff, settings.store_attempts)


def dispatcher_of(settings: Settings, desk: JobSource, handlers: HandlerRegistry) -> Runner:
    """For the jobs of one external service: they take no places of the jobs that run here."""
    return Runner(
        desk,
        handlers,
        concurrency=settings.concurrency,
        threads=0,
        grace_s=settings.grace_s,
        progress_interval_s=settings.progress_interval_s,
    )


def build_runner(
    settings: Settings, desk: JobSource, handlers: HandlerRegistry, scratch: Path
) -> Runner:
    """With processes of its own, whose temporary files are in *scratch*."""
    processes = ProcessPool(
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
