"""Jobs in a terminal: live bars where somebody looks, plain lines or JSON elsewhere."""

import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import zip_longest
from typing import Any, Protocol

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from eventjobs.client import Client
from eventjobs.job import FINISHED

Job = dict[str, Any]

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
LOST = "the connection is lost; trying again in {:.1f} s"
PACES = {"slower": "slower than usual", "stalled": "stalled"}


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


def line(job: Job) -> str:
    """The job in one line."""
    return f"{job['job_id']}  {printable(job['type'])}  {job['progress']:.0f}%  {says(job)}"


def says(job: Job) -> str:
    """Status, stage, message and what is left, as far as there is something to say."""
    if job["status"] != "running":
        parts = [job["status"]]
        if job["status"] == "completed" and job["message"]:
            parts.append(printable(job["message"]))
        if (error := job["error"]) is not None:
            parts.append(printable(f"{error['code']}: {error['message'] or ''}"))
        return ", ".join(parts)
    told = [printable(job[name]) for name in ("stage", "message") if job[name]]
    if job["attempt"] > 1:
        told.append(f"attempt {job['attempt']}")
    if (left := remaining(job)) is not None:
        told.append(left)
    return ", ".join(told or ["running"])


def table(jobs: Sequence[Job]) -> None:
    """The jobs, as *grid* shows them."""
    rows = [
        (
            job["job_id"],
            job["created_at"][:19] + "Z",
            printable(job["type"]),
            f"{job['progress']:.0f}%",
            says(job) if job["status"] != "running" else f"running, {says(job)}",
        )
        for job in jobs
    ]
    first = Column("job", no_wrap=True, min_width=36)
    last = Column("status", no_wrap=True, overflow="ellipsis")
    styles = [STYLES.get(job["status"], "") for job in jobs]
    grid((first, "submitted", "type", "", last), rows, styles)


def grid(
    head: Iterable[Column | str], rows: Sequence[Sequence[str]], styles: Iterable[str] = ()
) -> None:
    """A table in a terminal, tab-separated values without a head elsewhere.

    *styles* are those of the last cell of each row.
    """
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    made = Table(*head, box=None, header_style="bold")
    for row, style in zip_longest(rows, styles, fillvalue=""):
        made.add_row(*map(Text, row[:-1]), Text(row[-1], style))
    Console().print(made)


def details(job: Job) -> str:
    """The job in as many lines as it has something to say."""
    names = ("type", "status", "stage", "message", "attempt", "created_at", "started_at")
    told = [(name, job[name]) for name in (*names, "finished_at", "priority") if job[name]]
    told.insert(2, ("progress", f"{job['progress']:.0f}%"))
    if (left := remaining(job)) is not None:
        told.insert(3, ("remaining", left))
    if job["tags"]:
        told.append(("tags", ", ".join(job["tags"])))
    if (error := job["error"]) is not None:
        told.append(("error", f"{error['code']}: {error['message'] or ''}"))
    told += [("artifact", f"{each['name']} ({each['size']} bytes)") for each in job["artifacts"]]
    told += [
        (name, orjson.dumps(job[name]).decode()) for name in ("payload", "result") if job[name]
    ]
    return "\n".join(f"{name:12} {printable(value)}" for name, value in told)


def history(told: dict[str, Any]) -> str:
    """What happened, a line each; then the attempts."""
    lines = [
        f"{each['at']}  {printable(each['actor']):16}  {printable(each['text'])}"
        for each in told["entries"]
    ]
    for each in told["attempts"]:
        took = "" if each["duration_s"] is None else f" after {duration(each['duration_s'])}"
        why = f": {printable(each['error']['code'])}" if each["error"] else ""
        lines.append(
            f"attempt {each['attempt']} {each['outcome']}{took}{why}, {each['reports']} reports"
            f"{trace((each['error'] or {}).get('trace'))}"
        )
    return "\n".join(lines)


def trace(text: str | None) -> str:
    """The lines of a traceback, indented; nothing where there is none."""
    return "".join(f"\n    {printable_line(line)}" for line in (text or "").splitlines())


def last_trace(told: dict[str, Any]) -> str:
    """Of a history, that of the newest attempt that failed."""
    failed = [each["error"] for each in told["attempts"] if each["error"]]
    return trace(failed[-1].get("trace")) if failed else ""


def log_line(event: dict[str, Any]) -> str:
    """A line of a job's log."""
    data = event["data"]
    fields = data.get("fields") or {}
    exception = fields.pop("exception", None) if isinstance(fields, dict) else None
    shown = orjson.dumps(fields).decode() if fields else ""
    told = f"{event['at']}  {data.get('level', ''):7}  {printable(data.get('message') or '')}"
    said = trace(exception if isinstance(exception, str) else None)
    return f"{told}  {printable(shown)}".rstrip() + said


def printable_line(text: str) -> str:
    """The same as *printable*, with the spaces left as they are."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def remaining(job: Job) -> str | None:
    """How long it may take yet, learned from earlier jobs; None where nothing was learned."""
    if (left := job["remaining_s"]) is None:
        return None
    low, high = duration(left["low"]), duration(left["high"])
    text = f"about {high} left" if low == high else f"{low} to {high} left"
    pace = PACES.get(job["pace"] or "")
    return f"{text}, {pace}" if pace else text


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def printable(text: object) -> str:
    """*text* without what could steer a terminal: it came from handlers and submitters."""
    words = " ".join(str(text).split())
    return "".join(each if each.isprintable() else "\ufffd" for each in words)


def complain(delay_s: float) -> None:
    print(LOST.format(delay_s), file=sys.stderr)
