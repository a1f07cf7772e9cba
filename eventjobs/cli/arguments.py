"""Arguments and options that commands share, and parsers that refuse bad ones."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer

from eventjobs.cli.errors import fail
from eventjobs.clock import SystemClock
from eventjobs.domain.ids import parse_prefixed_id

Host = Annotated[str | None, typer.Option(help="Without authentication loopback only. [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="0 picks one. [8080]")]
Listen = Annotated[
    str | None,
    typer.Option(metavar="ADDRESSES", help="More addresses, as 127.0.0.1:5328, with commas."),
]
Data = Annotated[
    Path | None, typer.Option(readable=False, help="Directory of the log. [eventjobs-data]")
]
LogFormat = Annotated[
    Literal["auto", "json", "console"],
    typer.Option(
        envvar="EVENTJOBS_LOG_FORMAT",
        help="Of the lines of the log; auto: JSON, and readable in a terminal.",
    ),
]

Url = Annotated[str, typer.Option(envvar="EVENTJOBS_URL", help="Address of the service.")]


def read_job_id(text: str) -> str:
    """The UUID of an id `job_…`; another *text* as it is, which the service judges."""
    return parse_prefixed_id(text) or text


def read_job_ids(texts: list[str]) -> list[str]:
    """Each of *texts* as by *read_job_id*."""
    return list(map(read_job_id, texts))


Id = Annotated[str, typer.Argument(metavar="ID", callback=read_job_id, help="A job, by its id.")]
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", callback=read_job_ids, help="Jobs, by their ids.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Reason = Annotated[str | None, typer.Option(help="Why; shown in the job's history.")]

Statuses = Annotated[list[str] | None, typer.Option(help="Any of these; repeatable.")]
Types = Annotated[list[str] | None, typer.Option(help="Any of these; repeatable.")]
Tag = Annotated[str | None, typer.Option(help="Jobs that carry it.")]
Queue = Annotated[str | None, typer.Option(help="Jobs in it.")]
MaxWait = Annotated[
    float | None,
    typer.Option(
        envvar=["EVENTJOBS_MAX_WAIT_S", "CLIENT_MAX_WAIT_SECONDS"],
        min=0,
        metavar="SECONDS",
        help="Wait no longer for a job to end; it goes on.",
    ),
]


def without_unset(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are neither None nor an empty list."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def parse_payload(text: str | None) -> Any:
    """The JSON in *text*, in a file (@FILE), or on stdin (-)."""
    try:
        if text is None:
            return None
        if text == "-":
            return orjson.loads(sys.stdin.buffer.read())
        return orjson.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except orjson.JSONDecodeError as error:
        fail("usage", f"PAYLOAD is not JSON: {error}")
    except OSError as error:
        fail("file", str(error))


def parse_file(text: str) -> tuple[str, Path]:
    """The name and the path in `NAME=PATH`. The name is optional."""
    name, _, path = text.rpartition("=")
    return name or Path(path).name, Path(path)


def parse_time(text: str | None) -> datetime | None:
    """A time in ISO 8601; without an offset, in the local time zone."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        fail("usage", f"{text!r} is not a time like 2025-01-31T12:00 or 2025-01-31T12:00:00Z")


def parse_seconds(delay: str | None) -> float | None:
    """The seconds in a delay like 90, 90s, 5m, 2h or 1d."""
    if delay is None:
        return None
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", delay)):
        fail("usage", f"{delay!r} is not a delay like 90, 90s, 5m, 2h or 1d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def time_after(delay: str | None) -> datetime | None:
    """The time after a delay from now."""
    if (delay_s := parse_seconds(delay)) is None:
        return None
    return datetime.fromtimestamp(SystemClock().now_us() / 1e6 + delay_s, UTC)
