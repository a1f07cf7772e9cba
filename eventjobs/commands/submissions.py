"""Submitting jobs: a specification is checked, completed from its handler, and appended."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import LOCAL, Principal
from eventjobs.commands.access import permits_job
from eventjobs.commands.command_queue import CommandResult
from eventjobs.commands.jobs import Guard, Jobs, RetryOptions
from eventjobs.commands.queued_jobs import QueuedJobs
from eventjobs.domain.ids import new_id, parse_chosen_id, parse_id
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.submission import build_spec, is_checked, rebuild_spec
from eventjobs.domain.validation import read_files
from eventjobs.errors import (
    EventjobsError,
    InvalidInput,
    OwnerLimit,
    UnknownArtifact,
    UnknownJob,
)
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.projections import Views
from eventjobs.storage.artifacts import Artifacts
from eventjobs.storage.uploads import Uploads

#: Most submissions in one commit.
GROUP_MAX = 512


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


class NewJob(NamedTuple):
    """A submission: under a new id without *job_id*; *key*: the id is that of a key."""

    spec: JobSpec
    job_id: str | None = None
    key: bool = False


class _Prepared(NamedTuple):
    """A submission that is checked: its place in the list, and what to append."""

    place: int
    job_id: str
    spec: JobSpec
    #: Whether a place in the owner's limit is reserved for it.
    is_new: bool


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

    def new_job(
        self,
        type: str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        **options: Any,
    ) -> NewJob:
        """A submission from Python values. Raises InvalidInput, UnknownType."""
        # Set here, not by SpecDefaults.complete: it would copy the specification.
        attempts = self.defaults.max_attempts(type)
        spec = build_spec(type, payload, options, max_attempts=attempts)
        return NewJob(spec, None if job_id is None else parse_chosen_id(job_id))

    async def submit_values(
        self, jobs: Iterable[Mapping[str, Any]], *, actor: str
    ) -> list[CommandResult | EventjobsError]:
        """Submit jobs that are given as arguments of *new_job*; the outcome of each, in order."""
        outcomes: list[CommandResult | EventjobsError | None] = []
        new_jobs = []
        for values in jobs:
            try:
                if not isinstance(values, Mapping) or "type" not in values:
                    raise InvalidInput("a job is a mapping with a type")
                new_jobs.append(self.new_job(**values))
                outcomes.append(None)
            except EventjobsError as error:
                outcomes.append(error)
        submitted = iter(await self.submit_many(new_jobs, actor=actor))
        return [next(submitted) if each is None else each for each in outcomes]

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
        completed, job_id = await self._prepare(NewJob(spec, job_id, key), principal)
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

    async def submit_many(
        self, new_jobs: Sequence[NewJob], *, actor: str, principal: Principal = LOCAL
    ) -> list[CommandResult | EventjobsError]:
        """Submit *new_jobs*, of which one may name those before it; the outcome of each, in order.

        As many as possible are in one commit. Their errors are those of *submit*.
        """
        outcomes: list[CommandResult | EventjobsError] = []
        for group in _groups(new_jobs):
            outcomes += await self._submit_group(group, actor, principal)
        return outcomes

    async def _submit_group(
        self, group: Sequence[NewJob], actor: str, principal: Principal
    ) -> list[CommandResult | EventjobsError]:
        """Submit jobs that do not name each other."""
        outcomes: dict[int, CommandResult | EventjobsError] = {}
        together: list[_Prepared] = []
        for place, new in enumerate(group):
            try:
                completed, job_id = await self._prepare(new, principal)
                job_id = job_id or new_id(self._jobs.clock.now_us())
                is_new = self._queued_jobs.reserve(completed.owner, job_id)
            except OwnerLimit:
                outcomes[place] = await self._outcome(new, actor, principal)
            except EventjobsError as error:
                outcomes[place] = error
            else:
                together.append(_Prepared(place, job_id, completed, is_new))
        if together:
            new_jobs = [(each.spec, each.job_id, group[each.place].key) for each in together]
            submitted = await self._jobs.submit_many(new_jobs, actor=actor)
            for each, outcome in zip(together, submitted, strict=True):
                if not (isinstance(outcome, CommandResult) and outcome.changed):
                    self._queued_jobs.release(each.spec.owner, each.job_id, is_new=each.is_new)
                outcomes[each.place] = outcome
        return [outcomes[place] for place in range(len(group))]

    async def _outcome(
        self, new: NewJob, actor: str, principal: Principal
    ) -> CommandResult | EventjobsError:
        spec, job_id, key = new
        try:
            return await self.submit(spec, actor=actor, principal=principal, job_id=job_id, key=key)
        except EventjobsError as error:
            return error

    async def _prepare(self, new: NewJob, principal: Principal) -> tuple[JobSpec, str | None]:
        """The completed specification, and the job id. Raises as *submit* does."""
        spec = new.spec
        if not is_checked(spec):
            spec = rebuild_spec(spec)
            await self._check_artifacts(spec)
        if spec.after or spec.parent is not None:
            await self._check_named_jobs(spec, principal)
        job_id = None if new.job_id is None else parse_id(new.job_id)
        return self.defaults.complete(spec), job_id

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


def _groups(new_jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """*new_jobs* in order, cut where a job names one of its group, and where a commit is full."""
    begin = 0
    ids: set[str] = set()
    for place, (spec, job_id, _) in enumerate(new_jobs):
        if place - begin == GROUP_MAX or not ids.isdisjoint((*spec.after, spec.parent, job_id)):
            yield new_jobs[begin:place]
            begin, ids = place, set()
        if job_id is not None:
            ids.add(job_id)
    if begin < len(new_jobs):
        yield new_jobs[begin:]
