"""What is typed at the command line, as the value that is meant; or how it is refused."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

from eventjobs.cli import output as terminal
from eventjobs.clock import SystemClock

Host = Annotated[str | None, typer.Option(help="Loopback only. [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="0 picks one. [8080]")]

Data = Annotated[
    Path | None, typer.Option(readable=False, help="Directory of the log. [eventjobs-data]")
]

REFUSED, WRONG, UNREACHABLE, LATE = 1, 2, 3, 4


def fail(code: str, detail: str, status: int = WRONG) -> NoReturn:
    complain(code, detail)
    raise typer.Exit(status)


def complain(code: str, detail: str) -> None:
    typer.echo(f"error: {code}: {terminal.printable(detail)}", err=True)


def payload(text: str | None) -> Any:
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


def named(text: str) -> tuple[str, Path]:
    name, _, path = text.rpartition("=")
    return name or Path(path).name, Path(path)


def time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()  # without an offset, it is local
    except ValueError:
        fail("usage", f"{text!r} is not a time like 2025-01-31T12:00 or 2025-01-31T12:00:00Z")


def later(delay: str | None) -> datetime | None:
    if (delay_s := seconds(delay)) is None:
        return None
    return datetime.fromtimestamp(SystemClock().now_us() / 1e6 + delay_s, UTC)


def seconds(delay: str | None) -> float | None:
    if delay is None:
        return None
    if not (told := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", delay)):
        fail("usage", f"{delay!r} is not a delay like 90, 90s, 5m, 2h or 1d")
    return float(told[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[told[2]]
