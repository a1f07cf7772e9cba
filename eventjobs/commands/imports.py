"""Imports of jobs from the files of another job service: one at a read, or many at once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eventjobs.cache import LRUCache
from eventjobs.commands.jobs import Jobs
from eventjobs.concurrency.keyed_lock import KeyedLock
from eventjobs.domain.events import JobImported
from eventjobs.domain.ids import is_reserved
from eventjobs.domain.job_files import MalformedJobFile, Source, parse_history, parse_job_file
from eventjobs.errors import JobExists, LogError
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views
from eventjobs.settings import Settings, working_directory
from eventjobs.storage.job_directories import FoundFile, JobDirectories

#: The actor of events that record what a file says.
ACTOR = "import"
#: Files whose stamps are in memory.
STAMPS_MAX = 20_000
#: The directories while dialects of services with such files are on, and these dialects.
DEFAULT_DIRECTORIES = ("jobs", "shadow/jobs")
_DIALECTS = frozenset({"000", "001", "all"})
#: The value of the setting for no directories.
OFF = "off"


class ReadFile(NamedTuple):
    """What a file says: the states of its job, oldest first, and the lines that were skipped."""

    states: Sequence[JobImported]
    skipped: Sequence[str] = ()


class RecordedStates(NamedTuple):
    """How many states of a job were recorded, and whether the job is new."""

    events: int
    is_new: bool


class JobImporter:
    """Reads files in *directories*, and records what they say. Their jobs belong to *owner*."""

    def __init__(self, jobs: Jobs, directories: JobDirectories, owner: str | None = None) -> None:
        self._jobs = jobs
        self.directories = directories
        self._owner = owner

    def read(self, file: FoundFile) -> ReadFile:
        """Read and check *file*. Blocks. Raises MalformedJobFile."""
        try:
            text = self.directories.read(file)
        except OSError as error:
            raise MalformedJobFile(f"it cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise MalformedJobFile(str(error)) from error
        if is_reserved(file.job_id):
            raise MalformedJobFile("only this service makes ids of this form")
        source = Source(file.job_id, file.name, file.modified_us, self._owner)
        if not file.has_history:
            return ReadFile([parse_job_file(text, source)])
        return ReadFile(*parse_history(text, source))

    async def record(self, job_id: str, states: Sequence[JobImported]) -> RecordedStates:
        """Record the states that are not recorded yet.

        An interrupted call is completed by the next one. Raises JobExists for a job that was
        submitted to this service, and LogError.
        """
        events, version = 0, 0
        for state in states:
            newest = state is states[-1]
            result = await self._jobs.import_state(job_id, state, newest=newest, actor=ACTOR)
            events, version = events + result.changed, result.job.version
        return RecordedStates(events, 0 < events == version)


class ImportsAtRead:
    """Imports the file of a job when the job is read: a new file, or one that has changed."""

    def __init__(self, jobs: Jobs, views: Views, settings: Settings) -> None:
        self._directories = JobDirectories(
            [Path(working_directory() or "", each) for each in job_directories(settings)],
            settings.job_file_bytes_max,
        )
        self._importer = JobImporter(jobs, self._directories, settings.job_store_owner)
        self._views = views
        #: The stamps of the files that were read, also in vain.
        self._stamps: LRUCache[tuple[int, ...]] = LRUCache(STAMPS_MAX, STAMPS_MAX)
        self._locks = KeyedLock()
        self._log = get_logger("eventjobs.imports")

    async def refresh(self, job_id: str) -> None:
        """Import the file of *job_id* if there is one that was not read yet.

        A file that cannot be read is a warning in the log. Raises LogError when the job is unknown
        and cannot be recorded now.
        """
        if not self._directories.directories:
            return
        cached = self._views.cached_job(job_id)
        if cached is not None and cached.imported is None:
            return
        file = await asyncio.to_thread(self._directories.find, job_id)
        if file is None or self._stamps.get(job_id) == file.stamp:
            return
        await self._locks.acquire(job_id)
        try:
            if self._stamps.get(job_id) != file.stamp:
                await self._import(file)
                self._stamps.put(job_id, file.stamp, 1)
        except LogError as error:
            self._log.warning("job file not imported", path=str(file.path), error=error.code)
            if cached is None:
                raise
        finally:
            self._locks.release(job_id)

    async def _import(self, file: FoundFile) -> None:
        path = str(file.path)
        try:
            content = await asyncio.to_thread(self._importer.read, file)
            events, _ = await self._importer.record(file.job_id, content.states)
        except MalformedJobFile as error:
            self._log.warning("job file not read", path=path, why=str(error))
        except JobExists as error:
            self._log.info("job file not imported", path=path, why=error.message)
        else:
            if content.skipped:
                self._log.warning("lines of a job file skipped", path=path, why=content.skipped[:5])
            if events:
                self._log.info("job imported", job_id=file.job_id, path=path, events=events)


def job_directories(settings: Settings) -> tuple[str, ...]:
    """The directories with files of jobs: those of the setting, else those of the dialects."""
    names = settings.job_store_dirs
    if not names and _DIALECTS & {*settings.dialects}:
        names = DEFAULT_DIRECTORIES
    return () if names == (OFF,) else names
