"""Runners as configured by the settings, for the service and for remote workers."""

import os
from dataclasses import replace
from pathlib import Path

from eventjobs.execution.processes.pool import ProcessPool
from eventjobs.execution.runner import Runner
from eventjobs.execution.source import JobSource
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.breaker_state import BreakerRegistry
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.settings import Settings


def build_call_policy(settings: Settings, breakers: BreakerRegistry) -> CallPolicy:
    return CallPolicy(breakers, settings.backoff, settings.store_attempts)


def build_dispatch_runner(
    settings: Settings, source: JobSource, handlers: HandlerRegistry
) -> Runner:
    """A runner for the jobs of one external service, with slots of its own."""
    return Runner(
        source,
        handlers,
        concurrency=settings.concurrency,
        threads=0,
        grace_s=settings.grace_s,
        progress_interval_s=settings.progress_interval_s,
    )


def build_runner(
    settings: Settings, source: JobSource, handlers: HandlerRegistry, scratch: Path
) -> Runner:
    """A runner with a process pool, whose temporary files are in *scratch*."""
    processes = ProcessPool(
        source.clock,
        source.files,
        source.calls,
        scratch,
        limit=settings.processes or os.cpu_count() or 1,
        jobs_max=settings.process_jobs_max,
        capture_logs=settings.capture_logs,
        grace_s=settings.grace_s,
    )
    failing = settings.types_failed_at_shutdown
    return Runner(
        source,
        HandlerRegistry(
            replace(each, on_shutdown="fail") if each.type in failing else each for each in handlers
        ),
        concurrency=settings.concurrency,
        threads=settings.threads,
        processes=processes,
        grace_s=settings.grace_s,
        progress_interval_s=settings.progress_interval_s,
        capture_logs=settings.capture_logs,
    )
