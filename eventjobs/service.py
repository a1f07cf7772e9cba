"""A running eventjobs: opens its parts, wires them, and closes them in order."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.attempts.fencing import AttemptReports
from eventjobs.attempts.leases import LeaseMonitor
from eventjobs.attempts.limiter import ConcurrencyLimiter
from eventjobs.attempts.local_source import LocalJobSource
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.attempts.recovery import load_recent_starts, recover
from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import Clock, SystemClock, Timeline, sleep
from eventjobs.commands.jobs import CommandResult, Jobs
from eventjobs.commands.pauses import Pauses
from eventjobs.commands.submissions import check_named
from eventjobs.data_directory import lock, open_files
from eventjobs.domain.ids import parse_chosen_id, parse_id
from eventjobs.domain.job import Job
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.submission import build_spec, is_checked, rebuild_spec
from eventjobs.domain.validation import read_files
from eventjobs.errors import InvalidInput, JobNotFound, LogError, UnknownArtifact
from eventjobs.execution.build import build_call_policy, build_dispatch_runner, build_runner
from eventjobs.execution.loop_monitor import LoopMonitor
from eventjobs.execution.runner import Runner
from eventjobs.handlers.breaker_state import LocalBreakerRegistry
from eventjobs.handlers.declare import remote
from eventjobs.handlers.registry import Handler, HandlerRegistry
from eventjobs.handlers.schedule import Schedule
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.maintenance.cascade import CascadeCanceller
from eventjobs.maintenance.cron import CronScheduler
from eventjobs.maintenance.expiry import JobExpirer
from eventjobs.observability.logging import get_logger
from eventjobs.outbound.client import OutboundClient
from eventjobs.outbound.dispatch import ExternalDispatcher, dispatch_urls, service_name
from eventjobs.outbound.webhooks.deliveries import Webhooks
from eventjobs.projections.views import Views
from eventjobs.settings import Settings, working_directory
from eventjobs.storage.artifacts import Artifacts
from eventjobs.supervision import Supervisor


class Service:
    """Use it as `async with Service("data", [handler, ...]) as service`.

    Everything is durable when a method returns. One process at a time may have a data directory
    open; a second one gets DirectoryLocked.
    """

    log: SQLiteLog
    views: Views
    jobs: Jobs
    pauses: Pauses
    limiter: ConcurrencyLimiter
    claims: ClaimQueue
    cron: CronScheduler
    recorder: OutcomeRecorder
    leases: LeaseMonitor
    attempt_reports: AttemptReports
    breakers: LocalBreakerRegistry
    job_source: LocalJobSource
    runner: Runner
    artifacts: Artifacts
    master_key: MasterKey
    outbound: OutboundClient
    webhooks: Webhooks
    dispatcher: ExternalDispatcher

    def __init__(
        self,
        data: Path | str | None = None,
        handlers: Iterable[Handler | Schedule] | HandlerRegistry = (),
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = settings or Settings()
        # Absolute: a handler that changes the working directory moves no file of the service.
        directory = Path(working_directory() or "", settings.data if data is None else data)
        self.settings = settings.model_copy(update={"data": directory})
        declared = filter(None, map(str.strip, self.settings.worker_types.split(",")))
        self.handlers = HandlerRegistry.of(handlers).with_defaults(map(remote, declared))
        self.clock = clock or SystemClock()
        self.outbound = OutboundClient(self.clock, self.settings.outbound_allow)
        base_url = self.settings.python_service_url
        self._service_urls = dispatch_urls(self.handlers, self.outbound, base_url)
        self._supervisor = Supervisor(self.clock)
        self._open = False
        #: Whether what a crash cut off is recovered: no job is run before.
        self.recovered = False
        self._waits_for_log = asyncio.Event()
        self._lock: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._loop_monitor: LoopMonitor | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open everything, recover what a crash cut off, and begin to run jobs.

        Raises DataDirectoryError; InvalidInput for a schedule that does not fit.
        """
        settings = self.settings
        for each in self.handlers.schedules:
            try:
                self.checked(each.spec)
            except InvalidInput as error:
                raise InvalidInput(f"schedule {each.name!r}: {error}", error.errors) from error
        self._lock = await lock(settings.data)
        try:
            self.log, self.master_key, self.artifacts, self.views = await open_files(
                settings, self.clock
            )
        except BaseException:
            self._unlock()
            raise
        self._start_task(self.views.run(), "views")
        try:
            self._wire()
            await self._recover_if_possible()
        except BaseException:
            await self.close()
            raise
        self._loop_monitor = LoopMonitor(asyncio.get_running_loop())
        self._open = True

    async def _recover_if_possible(self) -> None:
        """Return once what a crash cut off is recovered, or waits for room on the disk."""
        trouble = (self._waits_for_log, self.views.failure_event)
        waits = [asyncio.create_task(each.wait()) for each in trouble]
        self._start_task(self._recovery(), "recovery")
        await asyncio.wait({*waits, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        for task in self._tasks:
            if task.done():
                await task  # for what it raised

    async def _recovery(self) -> None:
        while True:
            try:
                await self._recover()
                break
            except LogError as error:
                get_logger("eventjobs").warning("recovery waits", error=error.code)
                self._waits_for_log.set()
                await sleep(self.clock, 1.0)
        self._start_loops()
        self.recovered = True

    @property
    def ready(self) -> bool:
        """Whether it is started, and all of its parts work."""
        return self._open and not self.failing

    @property
    def failing(self) -> list[str]:
        """The names of the parts that failed and are being restarted."""
        return sorted(self._supervisor.failing)

    def _start_loops(self) -> None:
        self._run_supervised("leases", self.leases.run)
        if self.limiter.limits.rates:
            self._run_supervised("rates", self._recall_starts)
        for number, each in enumerate(self.runners):
            self._run_supervised(f"dispatcher {number}" if number else "runner", each.run)
        self._run_supervised("deliveries", self.webhooks.runner.run)
        self._run_supervised("webhooks", self.webhooks.follow)
        self._run_supervised("cascade", CascadeCanceller(self.jobs, self.views).run)
        timeline = self.claims.due_times.timeline
        self._run_supervised(
            "expiry", JobExpirer(self.jobs, self.views, self.settings.ttl_s, timeline).run
        )
        if self.handlers.schedules:
            self._run_supervised("schedules", self.cron.run)

    def _wire(self) -> None:
        settings = self.settings
        self.jobs = Jobs(
            self.log,
            self.clock,
            step_bytes_max=settings.result_bytes_max,
            log_lines_max=settings.log_lines_max,
        )
        # Random at each start: a restarted process must never look like the one that died.
        worker = f"worker-{os.urandom(4).hex()}"
        self.breakers = LocalBreakerRegistry(self.clock)
        self.pauses = Pauses(self.log, self.views, settings.pauses_max)
        limits = self.handlers.limits(settings.type_limits, settings.queue_limits)
        self.limiter = ConcurrencyLimiter(limits, self.clock)
        self.claims = ClaimQueue(self.jobs, self.views, self.clock, self.limiter)
        self.recorder = OutcomeRecorder(
            self.jobs,
            self.artifacts,
            retry_delay_s=settings.retry_delay_s,
            retry_delay_max_s=settings.retry_delay_max_s,
            result_bytes_max=settings.result_bytes_max,
        )
        found = (self.jobs, self.views, self.pauses, settings.catch_up_s)
        self.cron = CronScheduler(self.handlers.schedules, self._accept, *found)
        self.leases = LeaseMonitor(self.jobs, self.views, self.recorder, grace_s=settings.grace_s)
        names = {type: service_name(url) for type, url in self._service_urls.items()}
        self.attempt_reports = AttemptReports(self.jobs, self.recorder, self.leases, names)
        self.job_source = self._job_source(worker)
        self.dispatcher = ExternalDispatcher(
            self.jobs,
            self.master_key,
            self.outbound,
            targets=self._service_urls,
            public_url=settings.public_url,
            silence_s=settings.service_silence_s,
        )
        self.leases.on_external_stop(self.dispatcher.withdraw)
        self.runner = build_runner(
            settings, self.job_source, self.handlers, settings.data / "scratch"
        )
        self.runners = [self.runner] + [
            build_dispatch_runner(settings, self._job_source(worker), each)
            for each in self.dispatcher.local_handlers(self.handlers)
        ]
        calling = (self.master_key, self.outbound, settings.webhooks_max)
        self.webhooks = Webhooks(self.jobs, self.views, self._job_source(worker), *calling)

    async def _accept(self, spec: JobSpec, job_id: str, actor: str) -> CommandResult:
        return await self.accept(spec, job_id=job_id, actor=actor)

    def _job_source(self, worker: str) -> LocalJobSource:
        return LocalJobSource(
            worker,
            self.jobs,
            self.views,
            self.claims,
            self.artifacts,
            self.recorder,
            build_call_policy(self.settings, self.breakers),
            self._accept,
        )

    async def _recover(self) -> None:
        actor = self.job_source.worker
        await recover(self.jobs, self.views, self.recorder, self.leases, self.limiter, actor=actor)
        newest_us = await self.views.newest_us()
        self.claims.due_times.timeline = Timeline(self.clock, lambda: self.log.head, newest_us)
        changed = await self.views.breakers()
        self.breakers.restore(
            (each.name, each.changed_us or 0, each.until_us) for each in changed if each.until_us
        )

    async def _recall_starts(self) -> None:
        await load_recent_starts(self.log, self.views, self.limiter, self.clock)
        self.claims.waiters.wake_all()

    async def close(self) -> None:
        """Drain, give back what does not finish, and close. Idempotent; finishes if cancelled."""
        if self._closing is None:
            if self._lock is None:
                return  # it was never started
            self._closing = asyncio.create_task(self._close(), name="close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._open = False
        if self._loop_monitor is not None:
            self._loop_monitor.close()
        await asyncio.gather(self.drain(self.settings.drain_s), self.webhooks.runner.stop(0.0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.outbound.close()
        await self.log.close()
        await self.views.close()
        self._unlock()

    async def drain(self, drain_s: float) -> None:
        """Start no more jobs; let those that run finish for *drain_s*, then give them back."""
        await asyncio.gather(*(each.stop(drain_s) for each in self.runners))

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _run_supervised(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run *loop*, and again after a failure."""
        self._start_task(self._supervisor.keep_running(name, loop), name)

    def _start_task(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """A part that dies takes readiness with it, and says so."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._open = False
            get_logger("eventjobs").critical(
                "stopped working", part=task.get_name(), exc_info=error
            )

    # --- what embedding scripts use

    async def submit(
        self,
        type: str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        actor: str = "python",
        **spec: Any,
    ) -> Job:
        """Submit a job; *spec* are further fields of JobSpec, and `run_at` as a datetime.

        Raises UnknownType, UnknownJob, InvalidInput, JobExists, Overloaded, DiskFull,
        LogUnavailable.
        """
        # Here and not by *checked*: copying a specification costs more than all its checks.
        made = build_spec(type, payload, spec, max_attempts=self.attempts(type))
        job_id = None if job_id is None else parse_chosen_id(job_id)
        return (await self.accept(made, actor=actor, job_id=job_id)).job

    async def accept(
        self, spec: JobSpec, *, actor: str, job_id: str | None = None, key: bool = False
    ) -> CommandResult:
        """Check *spec* against its handler, fill in what it leaves open, and submit it.

        Raises what *submit* does, and UnknownJob.
        """
        if not is_checked(spec):
            spec = rebuild_spec(spec)
            if spec.artifacts:
                here = await self.attached({each.name: each.sha256 for each in spec.artifacts})
                if [each.size for each in here] != [each.size for each in spec.artifacts]:
                    raise InvalidInput("an artifact has another size than the file that it names")
        if spec.after or spec.parent is not None:
            await check_named(self.jobs, spec)
        job_id = None if job_id is None else parse_id(job_id)
        return await self.jobs.submit(self.checked(spec), actor=actor, job_id=job_id, key=key)

    def checked(self, spec: JobSpec) -> JobSpec:
        """*spec* with its handler's defaults. Raises UnknownType, InvalidInput."""
        handler = self.handlers.get(spec.type)
        if handler.model is not None:
            handler.parse(spec.payload)
        open_fields: dict[str, Any] = {
            name: value for name, value in handler.defaults.items() if getattr(spec, name) is None
        }
        if spec.timeout_s is None and "timeout_s" not in open_fields and self.settings.timeout_s:
            open_fields["timeout_s"] = self.settings.timeout_s
        if spec.queue is None and handler.flow.queue is not None:
            open_fields["queue"] = handler.flow.queue
        if spec.max_attempts == 0:
            open_fields["max_attempts"] = self.attempts(spec.type)
        return replace(spec, **open_fields) if open_fields else spec

    def attempts(self, type: str) -> int:
        """How often a job is tried that does not say. Raises UnknownType."""
        return self.handlers.get(type).max_attempts or self.settings.max_attempts

    async def attached(self, given: dict[str, str]) -> tuple[Artifact, ...]:
        """The artifacts of a submission, from {name: sha256}. Raises UnknownArtifact."""
        made = []
        for name, sha256 in read_files(given, "artifacts").items():
            size = await self.artifacts.size(sha256)
            if size is None:
                raise UnknownArtifact(
                    errors=[{"field": f"artifacts.{name}", "message": f"{sha256} is not here"}]
                )
            made.append(Artifact(name, sha256, size))
        return tuple(made)

    async def wait(self, job_id: str) -> Job:
        """The job, once it has ended. Raises JobNotFound, InvalidInput."""
        job_id = parse_id(job_id)
        while True:
            head = self.log.head
            job = await self.jobs.load_newest(job_id)
            if job is None:
                raise JobNotFound
            if job.finished:
                return job
            await self.log.wait(head, job_id)
