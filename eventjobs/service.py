"""The service: it opens its parts, connects them, and closes them in order."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.attempts.fencing import AttemptReports
from eventjobs.attempts.leases import LeaseMonitor
from eventjobs.attempts.limiter import ConcurrencyLimiter
from eventjobs.attempts.local_source import LocalJobSource
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.attempts.recovery import load_recent_starts, recover
from eventjobs.auth.credentials import Credentials, CredentialVerifier
from eventjobs.auth.master_key import MasterKey
from eventjobs.auth.principals import JWK_PREFIX
from eventjobs.auth.sessions import SessionSigner
from eventjobs.clock import Clock, SystemClock, Timeline, sleep
from eventjobs.commands.api_keys import APIKeys, APIKeyVerifier
from eventjobs.commands.imports import ImportsAtRead
from eventjobs.commands.jobs import Jobs
from eventjobs.commands.pauses import Pauses
from eventjobs.commands.queued_jobs import QueuedJobs
from eventjobs.commands.submissions import SpecDefaults, Submissions
from eventjobs.data_files import open_files
from eventjobs.domain.ids import parse_id
from eventjobs.domain.job import Job
from eventjobs.errors import EventjobsError, InvalidInput, LogError
from eventjobs.execution.build import build_call_policy, build_dispatch_runner, build_runner
from eventjobs.execution.loop_monitor import LoopMonitor
from eventjobs.execution.runner import Runner
from eventjobs.handlers.breaker_state import LocalBreakerRegistry
from eventjobs.handlers.registry import HandlerRegistry, Part
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.maintenance.cascade import CascadeCanceller
from eventjobs.maintenance.completion_hooks import CompletionHooks
from eventjobs.maintenance.cron import CronScheduler
from eventjobs.maintenance.expiry import JobExpirer
from eventjobs.observability.logging import get_logger
from eventjobs.outbound.client import OutboundClient
from eventjobs.outbound.dispatch import ExternalDispatcher, dispatch_urls, service_name
from eventjobs.outbound.hook_calls import HookCaller, with_settings
from eventjobs.outbound.webhooks.deliveries import WebhookDeliveries
from eventjobs.outbound.webhooks.sender import WebhookSender
from eventjobs.outbound.webhooks.subscriptions import WebhookSubscriptions
from eventjobs.projections import Views
from eventjobs.settings import Settings, working_directory
from eventjobs.storage.artifacts import Artifacts
from eventjobs.storage.data_directory import LAST_USES, SCRATCH, UPLOADS, lock
from eventjobs.storage.last_uses import LastUses
from eventjobs.storage.uploads import Uploads
from eventjobs.supervision import Supervisor

if TYPE_CHECKING:
    from eventjobs.auth.jwt import JWTVerifier
    from eventjobs.outbound.jwks import JWKS


class Service:
    """The job service in a program: `async with Service("data", [handler, ...]) as service`.

    A change is durable when the method returns. One process at a time can open a data directory;
    `start` raises DirectoryLocked in a second one.
    """

    log: SQLiteLog
    views: Views
    jobs: Jobs
    queued_jobs: QueuedJobs
    submissions: Submissions
    imports: ImportsAtRead
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
    uploads: Uploads
    master_key: MasterKey
    credentials: Credentials
    sessions: SessionSigner
    api_keys: APIKeys
    outbound: OutboundClient
    webhooks: WebhookSubscriptions
    deliveries: WebhookDeliveries
    webhook_sender: WebhookSender
    dispatcher: ExternalDispatcher

    def __init__(
        self,
        data: Path | str | None = None,
        handlers: Iterable[Part] | HandlerRegistry = (),
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = settings or Settings()
        # Absolute: a handler that changes the working directory moves no file of the service.
        directory = Path(working_directory() or "", settings.data if data is None else data)
        self.settings = settings.model_copy(update={"data": directory})
        self.clock = clock or SystemClock()
        self.outbound = OutboundClient(self.clock, self.settings.outbound_allow)
        self.handlers = with_settings(HandlerRegistry.of(handlers), self.settings, self.outbound)
        self._defaults = SpecDefaults(
            self.handlers, self.settings.max_attempts, self.settings.timeout_s
        )
        base_url = self.settings.python_service_url
        self._service_urls = dispatch_urls(self.handlers, self.outbound, base_url)
        self.supervisor = Supervisor(self.clock)
        self._open = False
        #: Whether the attempts that a crash interrupted are recovered. No job runs before.
        self.recovered = False
        self._recovery_delayed = asyncio.Event()
        self._lock: int | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop_monitor: LoopMonitor | None = None
        self._jwt: JWTVerifier | None = None
        self._jwks: JWKS | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the data directory, recover interrupted attempts, and start to run jobs.

        Raises DataDirectoryError; InvalidInput for a schedule whose jobs are not valid.
        """
        settings = self.settings
        for each in self.handlers.schedules:
            try:
                self._defaults.complete(each.spec)
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
        self.supervisor.start("views", self.views.run())
        try:
            self._wire()
            await self._start_recovery()
        except BaseException:
            await self.close()
            raise
        self._loop_monitor = LoopMonitor(asyncio.get_running_loop())
        self._open = True

    async def _start_recovery(self) -> None:
        """Start to recover, and return when that has ended or waits for space on the disk."""
        delays = (self._recovery_delayed, self.views.failure_event)
        waits = [asyncio.create_task(each.wait()) for each in delays]
        self.supervisor.start("recovery", self._recover_and_run())
        await asyncio.wait({*waits, *self.supervisor.tasks}, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        for task in self.supervisor.tasks:
            if task.done():
                await task  # raises its error

    async def _recover_and_run(self) -> None:
        while True:
            try:
                await self._recover()
                break
            except LogError as error:
                get_logger("eventjobs").warning("recovery waits", error=error.code)
                self._recovery_delayed.set()
                await sleep(self.clock, 1.0)
        self._start_loops()
        self.recovered = True

    @property
    def ready(self) -> bool:
        """Whether the service is started and no part has failed."""
        return self._open and not self.failing and not self.supervisor.is_broken

    @property
    def failing(self) -> list[str]:
        """The names of the parts that failed and wait for their restart."""
        return sorted(self.supervisor.failing)

    def _start_loops(self) -> None:
        start = self.supervisor.start_loop
        if self._jwks is not None:
            start("jwks", self._jwks.run)
        start("leases", self.leases.run)
        if self.limiter.limits.rates:
            start("rates", self._recall_starts)
        for number, each in enumerate(self.runners):
            start(f"runner {number}" if number else "runner", each.run)
        start("deliveries", self.webhook_sender.runner.run)
        start("webhooks", self.deliveries.follow)
        if self.settings.auth != "off":
            start("last uses", self.api_keys.run)
        start("hooks", CompletionHooks(self.jobs, self.views, self.handlers).run)
        start("cascade", CascadeCanceller(self.jobs, self.views).run)
        timeline = self.claims.due_times.timeline
        start("expiry", JobExpirer(self.jobs, self.views, self.settings.ttl_s, timeline).run)
        if self.handlers.schedules:
            start("schedules", self.cron.run)

    def _wire(self) -> None:
        settings = self.settings
        self.jobs = Jobs(
            self.log,
            self.clock,
            step_bytes_max=settings.result_bytes_max,
            log_lines_max=settings.log_lines_max,
        )
        self.uploads = Uploads(settings.data / UPLOADS, self.artifacts, settings.owner_bytes_max)
        self.queued_jobs = QueuedJobs(self.views, settings.owner_queued_max)
        self.submissions = Submissions(
            self.jobs, self.artifacts, self.uploads, self.views, self.queued_jobs, self._defaults
        )
        self.imports = ImportsAtRead(self.jobs, self.views, settings)
        # Random at each start: a restarted process must not look like the one before.
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
        schedules, catch_up_s = self.handlers.schedules, settings.catch_up_s
        self.cron = CronScheduler(
            schedules, self.submissions, self.jobs, self.views, self.pauses, catch_up_s
        )
        self.leases = LeaseMonitor(self.jobs, self.views, self.recorder, grace_s=settings.grace_s)
        names = {type: service_name(url) for type, url in self._service_urls.items()}
        self.attempt_reports = AttemptReports(self.jobs, self.recorder, self.leases, names)
        self._wire_credentials()
        self.job_source = self._job_source(worker)
        self._wire_runners(worker)

    def _wire_credentials(self) -> None:
        settings, session_key = self.settings, self.master_key.derive("session")
        self._key_verifier = keys = APIKeyVerifier(self.log)
        self.sessions = SessionSigner(session_key, self.clock, settings.session_s, self._is_active)
        verifiers: list[CredentialVerifier] = [keys, self.sessions]
        if settings.auth != "off" and (settings.jwt_secret or settings.jwks_url):
            # Imported where it is used: cryptography takes 10 MB.
            from eventjobs.outbound.jwks import build_jwt_verifier

            self._jwt, self._jwks = build_jwt_verifier(settings, self.clock)
            verifiers.append(self._jwt)
        self.credentials = Credentials(self.clock, verifiers)
        if self._jwks is not None:
            self._jwks.on_removed(self.credentials.revoke)
        last_uses = LastUses(settings.data / LAST_USES)
        self.api_keys = APIKeys(
            self.log, self.views, self.clock, self.credentials, last_uses, settings.api_keys_max
        )

    async def _is_active(self, credential: str) -> bool:
        """Whether *credential*, of a principal whose session it is, is not revoked."""
        if credential.startswith(JWK_PREFIX):
            return self._jwt is not None and await self._jwt.keys.has(credential)
        return await self._key_verifier.is_active(credential)

    def _wire_runners(self, worker: str) -> None:
        settings = self.settings
        self.dispatcher = ExternalDispatcher(
            self.jobs,
            self.master_key,
            self.outbound,
            urls=self._service_urls,
            public_url=settings.public_url,
            silence_s=settings.service_silence_s,
        )
        self.leases.on_external_stop(self.dispatcher.withdraw)
        self.runner = build_runner(
            settings, self.job_source, self.handlers, settings.data / SCRATCH
        )
        self.runners = [self.runner] + [
            build_dispatch_runner(settings, self._job_source(worker), each)
            for each in self.dispatcher.local_handlers(self.handlers)
        ]
        if hooks := self.handlers.hooks:
            source = self._job_source(worker)
            caller = HookCaller(self.jobs, source, self.outbound, self.master_key, hooks, settings)
            self.runners.append(caller.runner)
        policy, count_max = self.outbound.policy, settings.webhooks_max
        self.webhooks = WebhookSubscriptions(
            self.log, self.views, self.clock, self.master_key, policy, count_max
        )
        self.deliveries = WebhookDeliveries(self.jobs, self.webhooks)
        self.webhook_sender = WebhookSender(
            self.jobs, self._job_source(worker), self.outbound, self.webhooks
        )

    def _job_source(self, worker: str) -> LocalJobSource:
        return LocalJobSource(
            worker,
            self.jobs,
            self.views,
            self.claims,
            self.artifacts,
            self.recorder,
            build_call_policy(self.settings, self.breakers),
            self.submissions,
        )

    async def _recover(self) -> None:
        await asyncio.gather(self.queued_jobs.load(), self.claims.load())
        actor = self.job_source.worker
        await recover(self.jobs, self.views, self.recorder, self.leases, self.limiter, actor=actor)
        newest_us = await self.views.newest_us()
        self.claims.due_times.timeline = Timeline(self.clock, lambda: self.log.head, newest_us)
        self.breakers.restore(await self.views.open_breakers())

    async def _recall_starts(self) -> None:
        await load_recent_starts(self.log, self.views, self.limiter, self.clock)
        self.claims.waiters.wake_all()

    async def close(self) -> None:
        """Drain, release what does not finish, and close. Idempotent; completes when cancelled."""
        if self._closing is None:
            if self._lock is None:
                return  # not started
            self._closing = asyncio.create_task(self._close(), name="close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._open = False
        if self._loop_monitor is not None:
            self._loop_monitor.close()
        webhook_runner = self.webhook_sender.runner
        await asyncio.gather(self.drain(self.settings.drain_s), webhook_runner.stop(0.0))
        await self.supervisor.stop()
        await self.api_keys.write_uses()
        await self.outbound.close()
        if self._jwks is not None:
            await self._jwks.close()
        await self.log.close()
        await self.views.close()
        self._unlock()

    async def drain(self, drain_s: float) -> None:
        """Start no more jobs. Running ones get *drain_s* seconds to finish, then are released."""
        await asyncio.gather(*(each.stop(drain_s) for each in self.runners))

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- for programs that embed the service

    async def submit(
        self,
        type: str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        actor: str = "python",
        **spec: Any,
    ) -> Job:
        """Submit a job. *spec* are further fields of JobSpec, and `run_at` as a datetime.

        Raises UnknownType, UnknownJob, InvalidInput, JobExists, Overloaded, DiskFull,
        LogUnavailable.
        """
        new = self.submissions.new_job(type, payload, job_id=job_id, **spec)
        return (await self.submissions.submit(new.spec, actor=actor, job_id=new.job_id)).job

    async def submit_many(
        self, jobs: Iterable[Mapping[str, Any]], *, actor: str = "python"
    ) -> list[Job | EventjobsError]:
        """Submit jobs, each a mapping of the arguments of *submit*, up to 512 in one commit. The
        outcomes, in order; that of a refused one is its error, and harms no other.
        """
        outcomes = await self.submissions.submit_values(jobs, actor=actor)
        return [each if isinstance(each, EventjobsError) else each.job for each in outcomes]

    async def wait(self, job_id: str, *, hooks: bool = False) -> Job:
        """The job, once it has ended, with *hooks* once its completion hooks have, too. Raises
        JobNotFound, JobUnreadable, InvalidInput.
        """
        return await self.jobs.wait_until_finished(parse_id(job_id), hooks=hooks)
