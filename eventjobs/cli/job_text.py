"""Jobs, their histories and their logs as text."""

from collections.abc import Sequence

import orjson
from rich.table import Column
from rich.text import Text

from eventjobs.cli.output import print_table, printable, printable_line
from eventjobs.client.requests import JSONObject

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
PACES = {"slower": "slower than usual", "stalled": "stalled"}


def job_line(job: JSONObject) -> str:
    return f"{job['job_id']}  {printable(job['type'])}  {job['progress']:.0f}%  {status_text(job)}"


def status_text(job: JSONObject) -> str:
    """The status with message and error; of a running job its stage, message and remaining time."""
    if job["status"] != "running":
        parts = [job["status"]]
        if job["status"] == "completed" and job["message"]:
            parts.append(printable(job["message"]))
        if (error := job["error"]) is not None:
            parts.append(printable(f"{error['code']}: {error['message'] or ''}"))
        return ", ".join(parts)
    parts = [printable(job[name]) for name in ("stage", "message") if job[name]]
    if job["attempt"] > 1:
        parts.append(f"attempt {job['attempt']}")
    if (remaining := remaining_text(job)) is not None:
        parts.append(remaining)
    return ", ".join(parts or ["running"])


def remaining_text(job: JSONObject) -> str | None:
    """The estimate of the remaining time; None without earlier jobs to estimate from."""
    if (remaining := job["remaining_s"]) is None:
        return None
    low, high = duration_text(remaining["low"]), duration_text(remaining["high"])
    text = f"about {high} left" if low == high else f"{low} to {high} left"
    pace = PACES.get(job["pace"] or "")
    return f"{text}, {pace}" if pace else text


def duration_text(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def print_jobs(jobs: Sequence[JSONObject]) -> None:
    """Print a table with a row for each job."""
    first = Column("job", no_wrap=True, min_width=36)
    last = Column("status", no_wrap=True, overflow="ellipsis")
    print_table((first, "submitted", "type", "", last), map(_job_row, jobs))


def _job_row(job: JSONObject) -> tuple[str | Text, ...]:
    status = status_text(job)
    return (
        job["job_id"],
        job["created_at"][:19] + "Z",
        printable(job["type"]),
        f"{job['progress']:.0f}%",
        Text(
            status if job["status"] != "running" else f"running, {status}",
            STYLES.get(job["status"], ""),
        ),
    )


def job_details(job: JSONObject) -> str:
    """A line for each field of the job that is set."""
    names = ("type", "status", "stage", "message", "attempt", "created_at", "started_at")
    fields = [(name, job[name]) for name in (*names, "finished_at", "priority") if job[name]]
    fields.insert(2, ("progress", f"{job['progress']:.0f}%"))
    if (remaining := remaining_text(job)) is not None:
        fields.insert(3, ("remaining", remaining))
    if job["tags"]:
        fields.append(("tags", ", ".join(job["tags"])))
    if (error := job["error"]) is not None:
        fields.append(("error", f"{error['code']}: {error['message'] or ''}"))
    fields += [("artifact", f"{each['name']} ({each['size']} bytes)") for each in job["artifacts"]]
    fields += [
        (name, orjson.dumps(job[name]).decode()) for name in ("payload", "result") if job[name]
    ]
    return "\n".join(f"{name:12} {printable(value)}" for name, value in fields)


def history_text(history: JSONObject) -> str:
    """A line for each entry, then one for each attempt, with its traceback."""
    lines = [
        f"{each['at']}  {printable(each['actor']):16}  {printable(each['text'])}"
        for each in history["entries"]
    ]
    for each in history["attempts"]:
        took = "" if each["duration_s"] is None else f" after {duration_text(each['duration_s'])}"
        reason = f": {printable(each['error']['code'])}" if each["error"] else ""
        lines.append(
            f"attempt {each['attempt']} {each['outcome']}{took}{reason}, {each['reports']} reports"
            f"{trace_text((each['error'] or {}).get('trace'))}"
        )
    return "\n".join(lines)


def trace_text(trace: str | None) -> str:
    """The lines of a traceback, indented, each on a new line; empty without a traceback."""
    return "".join(f"\n    {printable_line(line)}" for line in (trace or "").splitlines())


def newest_trace_text(history: JSONObject) -> str:
    """The traceback of the newest attempt that failed."""
    errors = [each["error"] for each in history["attempts"] if each["error"]]
    return trace_text(errors[-1].get("trace")) if errors else ""


def log_line(event: JSONObject) -> str:
    """A line of a job's log: time, level, message, fields, and the traceback of an exception."""
    data = event["data"]
    fields = data.get("fields") or {}
    exception = fields.pop("exception", None) if isinstance(fields, dict) else None
    json = orjson.dumps(fields).decode() if fields else ""
    line = f"{event['at']}  {data.get('level', ''):7}  {printable(data.get('message') or '')}"
    trace = trace_text(exception if isinstance(exception, str) else None)
    return f"{line}  {printable(json)}".rstrip() + trace
