"""Runs a handler of the demo in a context that records what it reports."""

import csv
import io
import json
import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from eventjobs.demo.handlers import analyze_csv
from eventjobs.errors import JobError
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.registry import Handler

Result = dict[str, Any]


class RecordingContext:
    """A context that records the progress, the messages and the artifacts of a handler."""

    def __init__(self, source: Path | None = None, attempt: int = 1) -> None:
        self.source = source
        self.attempt = attempt
        self.progressed: list[tuple[float, str | None]] = []
        self.messages: list[str | None] = []
        self.artifacts: dict[str, str] = {}
        self.cancel_at = float("inf")

    def sleep(self, delay_s: float) -> None:
        assert delay_s >= 0

    def check_cancelled(self) -> None:
        if self.progressed and self.progressed[-1][0] >= self.cancel_at:
            raise Stopped

    def progress(
        self, done: float, total: float, *, stage: str | None = None, message: str | None = None
    ) -> None:
        assert 0 <= done <= total
        self.progressed.append((done / total, stage))
        self.messages.append(message)

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        json.dumps(fields, allow_nan=False)

    def artifact(self, name: str, content: bytes, media_type: str) -> None:
        assert media_type == "image/svg+xml"
        self.artifacts[name] = content.decode()

    def input(self, name: str | None = None) -> Path:
        if self.source is None:
            raise JobError("artifact_missing", "the job has no artifact", retryable=False)
        return self.source


def run(handler: Handler, ctx: RecordingContext, **payload: Any) -> Result:
    result = handler.function(ctx, handler.parse(payload))
    return json.loads(json.dumps(result, allow_nan=False))  # type: ignore[no-any-return]


def profile_of(source: Path, content: str | bytes, **payload: Any) -> Result:
    """The result of analyze-csv for a file with this content."""
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    return run(analyze_csv, RecordingContext(source), **payload)


def column(result: Result, name: str) -> Result:
    return next(each for each in result["columns"] if each["name"] == name)


def csv_text(rows: list[list[str]], **how: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **how).writerows(rows)
    return text.getvalue()


def sample_frame(rows: int) -> pl.DataFrame:
    chance = random.Random(7)
    x = [chance.gauss(50, 10) if chance.random() > 0.1 else None for _ in range(rows)]
    return pl.DataFrame(
        {
            "id": range(1, rows + 1),
            "x": x,
            "y": [3 * value + chance.gauss(0, 1) if value else 7.5 for value in x],
            "n": [chance.randint(-5, 5) for _ in range(rows)],
            "city": [chance.choice(["Paris", "Berlin, DE", 'The "Hague"', None]) for _ in x],
            "day": [date(2020, 1, 1) + timedelta(chance.randint(0, 900)) for _ in x],
            "ok": [chance.choice([True, False, None]) for _ in x],
        },
        strict=False,
    )
