"""Submitting jobs: a specification is checked, completed from its handler, and appended."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import LOCAL, Principal
from eventjobs.commands.access import permits_job
from eventjobs.commands.command_queue import CommandResult
from eventjobs.commands.jobs import Guard, Jobs, RetryOptions
from eventjobs.commands.queued_jobs import QueuedJobs
from eventjobs.domain.ids import new_id, parse_id
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.submission import is_checked, rebuild_spec
from eventjobs.domain.validation import read_files
from eventjobs.errors import InvalidInput, OwnerLimit, UnknownArtifact, UnknownJob
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.projections import Views
from eventjobs.storage.artifacts import Artifacts
from eventjobs.storage.uploads import Uploads


class SpecDefaults:
    """Values for the fields that a specification leaves open: the handler's, then the settings'."""

    def __init__(
        self, handlers: HandlerRegistry, max_attempts: int, timeout_s: float | None
    ) -> None:
        self._handlers = handlers
        self._max_attempts = max_attempts
        self._timeout_s = timeout_s

    def max_attempts(self, type: str) -> int:
        """The default number of attempts of a job of *type*. Raises UnknownType."""
        return self._handlers.get(type).max_attempts or self._max_attempts

    def complete(self, spec: JobSpec) -> JobSpec:
        """*spec* with its open fields filled in. Raises UnknownType, and InvalidInput for a payload
        that does not fit the handler's model.
        """
        handler = self._handlers.get(spec.type)
        if handler.model is not None:
            handler.parse(spec.payload)
        open_fields: dict[str, Any] = {
            name: value for name, value in handler.defaults.items() if getattr(spec, name) is None
        }
        if spec.timeout_s is None and "timeout_s" not in open_fields and self._timeout_s:
            open_fields["timeout_s"] = self._timeout_s
        if spec.queue is None and handler.limits.queue is not None:
            open_fields["queue"] = handler.limits.queue
        if handler.sensitive:
            open_fields["sensitive"] = handler.sensitive
        if hooks := self._handlers.hook_names(spec.type):
            open_fields["hooks"] = hooks
        if spec.max_attempts == 0:
            open_fields["max_attempts"] = self.max_attempts(spec.type)
        return replace(spec, **open_fields) if open_fields else spec


class Submissions:
    """Submits jobs for Python, HTTP, schedules and handlers alike, and queues them again."""

    def __init__(
        self,
        jobs: Jobs,
        artifacts: Artifacts,
        uploads: Uploads,
        views: Views,
        queued_jobs: QueuedJobs,
        defaults: SpecDefaults,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._uploads = uploads
        self._views = views
        self._queued_jobs = queued_jobs
        self.defaults = defaults

    async def submit(
        self,
        spec: JobSpec,
        *,
        actor: str,
        principal: Principal = LOCAL,
        job_id: str | None = None,
        key: bool = False,
    ) -> CommandResult:
        """Check *spec*, fill in its open fields, and submit it as *job_id* or under a new id.

        The jobs that *spec* names have to be jobs that *principal* may read.
        Raises what Jobs.submit does, OwnerLimit, UnknownType, UnknownJob, UnknownArtifact,
        InvalidInput.
        """
        if not is_checked(spec):
            spec = rebuild_spec(spec)
            await self._check_artifacts(spec)
        if spec.after or spec.parent is not None:
            await self._check_named_jobs(spec, principal)
        job_id = None if job_id is None else parse_id(job_id)
        completed = self.defaults.complete(spec)
        if spec.owner is None:
            return await self._jobs.submit(completed, actor=actor, job_id=job_id, key=key)
        job_id = job_id or new_id(self._jobs.clock.now_us())
        submit = partial(self._jobs.submit, completed, actor=actor, job_id=job_id, key=key)
        try:
            return await self._queued_jobs.queue(spec.owner, job_id, submit)
        except OwnerLimit:
            if await self._jobs.load(job_id) is None:
                raise
            return await submit()  # again: it queues nothing

    async def retry(
        self, job_id: str, options: RetryOptions, *, actor: str, guard: Guard | None = None
    ) -> CommandResult:
        """Queue a job that has ended again. Raises what Jobs.retry does, and OwnerLimit."""
        job = await self._jobs.load(job_id)
        owner = None if job is None else job.spec.owner
        retry = partial(self._jobs.retry, job_id, **options.model_dump(), actor=actor, guard=guard)
        return await self._queued_jobs.queue(owner, job_id, retry)

    async def artifacts_of(
        self, files: Mapping[str, str], owners: Collection[str] | None = None
    ) -> tuple[Artifact, ...]:
        """The stored files *files*, {name: sha256}, as artifacts of a submission. With *owners*,
        each was uploaded by one of them, or is a file of one's job.

        Raises UnknownArtifact, InvalidInput.
        """
        artifacts = []
        for name, sha256 in read_files(files, "artifacts").items():
            size = await self._artifacts.size(sha256)
            if size is None or not await self._may_use(sha256, owners):
                raise UnknownArtifact(
                    errors=[{"field": f"artifacts.{name}", "message": f"{sha256} is not here"}]
                )
            artifacts.append(Artifact(name, sha256, size))
        return tuple(artifacts)

    async def _may_use(self, sha256: str, owners: Collection[str] | None) -> bool:
        if owners is None:
            return True
        for each in owners:
            if await self._uploads.has(each, sha256):
                return True
        for each in owners:
            if await self._views.owns_file(each, sha256):
                return True
        return False

    async def _check_artifacts(self, spec: JobSpec) -> None:
        if not spec.artifacts:
            return
        stored = await self.artifacts_of({each.name: each.sha256 for each in spec.artifacts})
        if [each.size for each in stored] != [each.size for each in spec.artifacts]:
            raise InvalidInput("an artifact has another size than the file that it names")

    async def _check_named_jobs(self, spec: JobSpec, principal: Principal) -> None:
        """Raises UnknownJob when *spec* names a job that does not exist, or that *principal* may
        not read. A hidden job exists.
        """
        named = [(f"after.{index}", each) for index, each in enumerate(spec.after)]
        if spec.parent is not None:
            named.append(("parent", spec.parent))
        missing = [
            {"field": field, "message": f"there is no job {job_id}"}
            for field, job_id in named
            if not await self._may_name(job_id, principal)
        ]
        if missing:
            raise UnknownJob(errors=missing)

    async def _may_name(self, job_id: str, principal: Principal) -> bool:
        job = await self._jobs.load(job_id)
        return job is not None and await permits_job(self._jobs, principal, Action.READ, job)
