"""Live progress of jobs on standard output: bars in a terminal, else lines or JSON."""

import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from eventjobs.cli.job_text import STYLES, job_line, status_text
from eventjobs.cli.output import emit, printable
from eventjobs.client import Client
from eventjobs.client.requests import JSONObject
from eventjobs.domain.job import FINISHED

CONNECTION_LOST = "the connection is lost; trying again in {:.1f} s"


class Display(Protocol):
    def show(self, job: JSONObject) -> None: ...
    def connection_lost(self, delay_s: float) -> None: ...
    def close(self) -> None: ...


def make_display(*, json: bool) -> Display:
    if json:
        return JSONDisplay()
    return BarDisplay(Console()) if sys.stdout.isatty() else LineDisplay()


def print_connection_lost(delay_s: float) -> None:
    print(CONNECTION_LOST.format(delay_s), file=sys.stderr)


async def follow(
    client: Client,
    display: Display,
    ids: Sequence[str],
    filters: dict[str, Any],
    *,
    forever: bool = False,
) -> Counter[str]:
    """Show the jobs *ids*, or those that match, until all have ended. Returns numbers by status."""
    if ids:
        return await _show(client.watch(ids), display, {})
    statuses: dict[str, str] = {}
    position = cursor = None
    while position is None or cursor is not None:
        page = await client.page(cursor=cursor, limit=1000, **filters)
        cursor = page["next"]
        # The stream begins at the first page: it repeats what changed between the pages.
        position = page["position"] if position is None else position
        for job in page["jobs"]:
            statuses[job["job_id"]] = job["status"]
            if job["status"] not in FINISHED:
                display.show(job)
    if not forever and FINISHED.issuperset(statuses.values()):
        return Counter(statuses.values())
    return await _show(client.watch(after=position, **filters), display, statuses, forever=forever)


async def _show(
    snapshots: AsyncGenerator[JSONObject, None],
    display: Display,
    statuses: dict[str, str],
    *,
    forever: bool = True,
) -> Counter[str]:
    async with aclosing(snapshots):
        async for job in snapshots:
            display.show(job)
            statuses[job["job_id"]] = job["status"]
            if not forever and FINISHED.issuperset(statuses.values()):
                break
    return Counter(statuses.values())


class JSONDisplay:
    """One JSON object a line."""

    def show(self, job: JSONObject) -> None:
        emit(job)

    def connection_lost(self, delay_s: float) -> None:
        print_connection_lost(delay_s)

    def close(self) -> None:
        pass


class LineDisplay:
    """A line for each change of status, attempt or stage, and for each ten percent."""

    def __init__(self) -> None:
        self._printed: dict[str, tuple[Any, ...]] = {}

    def show(self, job: JSONObject) -> None:
        state = job["status"], job["attempt"], job["stage"], job["progress"] // 10
        if self._printed.get(job["job_id"]) != state:
            self._printed[job["job_id"]] = state
            emit(job_line(job))

    def connection_lost(self, delay_s: float) -> None:
        print_connection_lost(delay_s)

    def close(self) -> None:
        pass


class BarDisplay:
    """A bar for each job that has not ended, below a line for each that has."""

    def __init__(self, console: Console) -> None:
        self._console = console
        status = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False, table_column=status),
            console=console,
            transient=True,
            expand=True,
        )
        self._progress.start()
        self._bars: dict[str, TaskID] = {}
        self._ended: set[str] = set()

    def show(self, job: JSONObject) -> None:
        job_id = job["job_id"]
        if job["status"] in FINISHED:
            if (bar := self._bars.pop(job_id, None)) is not None:
                self._progress.remove_task(bar)
            if job_id not in self._ended:
                self._progress.console.print(Text(job_line(job), STYLES[job["status"]]))
            self._ended.add(job_id)
            return
        self._ended.discard(job_id)  # retried
        if job_id not in self._bars:
            # Only the end of an id differs between jobs: the beginning is the time.
            name = f"{printable(job['type'])} {job_id[-12:]}"
            self._bars[job_id] = self._progress.add_task("", total=100, name=name)
        self._progress.update(
            self._bars[job_id], completed=job["progress"], description=status_text(job)
        )

    def connection_lost(self, delay_s: float) -> None:
        self._progress.console.print(Text(CONNECTION_LOST.format(delay_s), "yellow"))

    def close(self) -> None:
        self._progress.stop()
