"""Imports the job files of another service into a data directory.

    eventjobs-import DIR... [--data DATA] [--owner NAME] [--json]

A file is DIR/UUID.json, or DIR/UUID/events.log; docs/job-files.md describes both. The service must
be stopped. It is safe to repeat: only files that are new or have changed are recorded, also after
an interruption. Of two files of one job the newest counts. The names of malformed files go to
stderr, each with the reason. The exit code is 0, 1 when there are malformed files, 2 after an
error.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from eventjobs.cli.setting_values import read_settings
from eventjobs.commands.imports import JobImporter, ReadFile
from eventjobs.data_files import open_jobs
from eventjobs.domain.job_files import MalformedJobFile
from eventjobs.errors import EventjobsError, JobExists
from eventjobs.observability.logging import configure
from eventjobs.settings import Settings
from eventjobs.storage.job_directories import FoundFile, JobDirectories

#: Files that are read and recorded at a time.
BATCH = 500

#: Called with the number of files that are done, and of all.
OnProgress = Callable[[int, int], object]


@dataclass
class Report:
    """What was done, by numbers of files."""

    imported: int = 0
    changed: int = 0
    unchanged: int = 0
    #: Files of jobs of which there is a newer file.
    older: int = 0
    #: Files with the id of a job that was submitted to the service.
    taken: int = 0
    events: int = 0
    #: (file, reason)
    malformed: list[tuple[str, str]] = field(default_factory=list)
    #: (file, reason) of lines of histories.
    skipped_lines: list[tuple[str, str]] = field(default_factory=list)

    def text(self) -> str:
        numbers = {
            "imported": self.imported,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "malformed": len(self.malformed),
            "older than another file of the job": self.older,
            "with the id of a job of the service": self.taken,
        }
        always = {"imported", "changed", "unchanged", "malformed"}
        shown = [f"{n} {name}" for name, n in numbers.items() if n or name in always]
        lines = f"; {len(self.skipped_lines)} lines skipped" if self.skipped_lines else ""
        return f"{', '.join(shown)}; {self.events} events{lines}"


class BulkImport:
    """An import of all files in some directories. The report grows while it runs."""

    def __init__(self, importer: JobImporter, report: Report, on_progress: OnProgress) -> None:
        self._importer = importer
        self._report = report
        self._on_progress = on_progress

    async def run(self) -> None:
        """Raises OSError for a directory, and LogError; what was recorded until then stays."""
        files = await asyncio.to_thread(self._newest_files)
        self._on_progress(0, len(files))
        done = 0
        while batch := files[done : done + BATCH]:
            contents = await asyncio.to_thread(self._read_all, batch)
            await asyncio.gather(*map(self._record, batch, contents))
            done += len(batch)
            self._on_progress(done, len(files))

    def _newest_files(self) -> list[FoundFile]:
        newest: dict[str, FoundFile] = {}
        for file in self._importer.directories.scan():
            if not file.job_id:
                self._refuse(file, file.fault or "its name is no UUID")
                continue
            other = newest.get(file.job_id)
            if other is not None:
                self._report.older += 1
            if other is None or file.modified_us > other.modified_us:
                newest[file.job_id] = file
        return list(newest.values())

    def _read_all(self, files: Sequence[FoundFile]) -> list[ReadFile | None]:
        contents: list[ReadFile | None] = []
        for file in files:
            try:
                contents.append(self._importer.read(file))
            except MalformedJobFile as error:
                self._refuse(file, str(error))
                contents.append(None)
        return contents

    async def _record(self, file: FoundFile, content: ReadFile | None) -> None:
        if content is None:
            return
        report = self._report
        report.skipped_lines += [(file.name, why) for why in content.skipped]
        try:
            events, is_new = await self._importer.record(file.job_id, content.states)
        except JobExists:
            report.taken += 1
            return
        report.events += events
        if is_new:
            report.imported += 1
        elif events:
            report.changed += 1
        else:
            report.unchanged += 1

    def _refuse(self, file: FoundFile, why: str) -> None:
        self._report.malformed.append((str(file.path), why))


async def import_all(
    directories: Sequence[Path], settings: Settings, report: Report, on_progress: OnProgress
) -> None:
    """Import all files into the data directory of *settings*, which is made when missing.

    Raises DataDirectoryError, and as BulkImport.run.
    """
    async with open_jobs(settings) as jobs:
        files = JobDirectories(directories, settings.job_file_bytes_max)
        importer = JobImporter(jobs, files, settings.job_store_owner)
        await BulkImport(importer, report, on_progress).run()


# --- the command


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("eventjobs-import", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="with job files")
    parser.add_argument("--data", type=Path, help="the data directory; else EVENTJOBS_DATA")
    parser.add_argument("--owner", help="of the jobs; else EVENTJOBS_JOB_STORE_OWNER")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    configure("warning")
    values = {"data": options.data, "job_store_owner": options.owner}
    report, code = Report(), 0
    try:
        settings = read_settings(Settings, {k: v for k, v in values.items() if v is not None})
        with progress_bar() as on_progress:
            asyncio.run(import_all(options.directories, settings, report, on_progress))
    except EventjobsError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        code = 2
    except OSError as error:
        print(f"error: directory: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted: run it again to continue", file=sys.stderr)
        code = 130
    for kind in (report.malformed, report.skipped_lines):
        for path, why in kind:
            print(f"{path}: {why}", file=sys.stderr)
    print(orjson.dumps(report).decode() if options.json else report.text())
    return code or int(bool(report.malformed))


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar on a terminal; nothing where stderr is a file or a pipe."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("importing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
