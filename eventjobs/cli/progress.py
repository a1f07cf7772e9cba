"""Live progress of jobs in a terminal: bars, lines or JSON."""

import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from eventjobs.cli.output import STYLES, Job, line, printable, says
from eventjobs.client import Client
from eventjobs.domain.job import FINISHED

LOST = "the connection is lost; trying again in {:.1f} s"


class Display(Protocol):
    def show(self, job: Job) -> None: ...
    def lost(self, delay_s: float) -> None: ...
    def close(self) -> None: ...


def display(*, json: bool) -> Display:
    """What suits where the output goes."""
    if json:
        return Snapshots()
    return Bars(Console()) if sys.stdout.isatty() else Lines()


async def follow(
    client: Client,
    shown: Display,
    ids: Sequence[str],
    filters: dict[str, Any],
    *,
    forever: bool = False,
) -> Counter[str]:
    """Show these jobs, or those that match, until all have ended; how many ended how."""
    if ids:
        return await _show(client.watch(ids), shown, {})
    statuses: dict[str, str] = {}
    position = cursor = None
    while position is None or cursor is not None:
        page = await client.page(cursor=cursor, limit=1000, **filters)
        cursor = page["next"]
        # What changed while later pages were read comes again: the stream begins at the first.
        position = page["position"] if position is None else position
        for job in page["jobs"]:
            statuses[job["job_id"]] = job["status"]
            if job["status"] not in FINISHED:
                shown.show(job)
    if not forever and FINISHED.issuperset(statuses.values()):
        return Counter(statuses.values())
    return await _show(client.watch(after=position, **filters), shown, statuses, forever=forever)


async def _show(
    snapshots: AsyncGenerator[Job, None],
    shown: Display,
    statuses: dict[str, str],
    *,
    forever: bool = True,
) -> Counter[str]:
    async with aclosing(snapshots):
        async for job in snapshots:
            shown.show(job)
            statuses[job["job_id"]] = job["status"]
            if not forever and FINISHED.issuperset(statuses.values()):
                break
    return Counter(statuses.values())


class Snapshots:
    """One JSON object a line."""

    def show(self, job: Job) -> None:
        print(orjson.dumps(job).decode(), flush=True)

    def lost(self, delay_s: float) -> None:
        complain(delay_s)

    def close(self) -> None:
        pass


class Lines:
    """A line whenever something new is to be said: a status, a stage, ten percent more."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[Any, ...]] = {}

    def show(self, job: Job) -> None:
        news = job["status"], job["attempt"], job["stage"], job["progress"] // 10
        if self._told.get(job["job_id"]) != news:
            self._told[job["job_id"]] = news
            print(line(job), flush=True)

    def lost(self, delay_s: float) -> None:
        complain(delay_s)

    def close(self) -> None:
        pass


class Bars:
    """A bar for each job that has not ended, below a line for each that has."""

    def __init__(self, console: Console) -> None:
        self._console = console
        says = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False, table_column=says),
            console=console,
            transient=True,
            expand=True,
        )
        self._progress.start()
        self._bars: dict[str, TaskID] = {}
        self._ended: set[str] = set()

    def show(self, job: Job) -> None:
        job_id = job["job_id"]
        if job["status"] in FINISHED:
            if (bar := self._bars.pop(job_id, None)) is not None:
                self._progress.remove_task(bar)
            if job_id not in self._ended:
                self._progress.console.print(Text(line(job), STYLES[job["status"]]))
            self._ended.add(job_id)
            return
        self._ended.discard(job_id)  # retried
        if job_id not in self._bars:
            # An id begins with the time, and ends differently for each job.
            name = f"{printable(job['type'])} {job_id[-12:]}"
            self._bars[job_id] = self._progress.add_task("", total=100, name=name)
        self._progress.update(self._bars[job_id], completed=job["progress"], description=says(job))

    def lost(self, delay_s: float) -> None:
        self._progress.console.print(Text(LOST.format(delay_s), "yellow"))

    def close(self) -> None:
        self._progress.stop()


def complain(delay_s: float) -> None:
    print(LOST.format(delay_s), file=sys.stderr)
