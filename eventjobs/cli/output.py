"""Jobs in a terminal: live bars where somebody looks, plain lines or JSON elsewhere."""

import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import orjson
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

Job = dict[str, Any]

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
PACES = {"slower": "slower than usual", "stalled": "stalled"}


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
