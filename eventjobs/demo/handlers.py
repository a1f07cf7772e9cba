"""The jobs of `eventjobs serve --demo`: two that do real work, and some to try the service with."""

import asyncio
import codecs
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel, Field, field_validator

from eventjobs.demo.language_model import LLMBusy, ask
from eventjobs.demo.protocol.review import review
from eventjobs.demo.settings import DemoSettings
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.hooks import CompletedJob, on_completion
from eventjobs.handlers.thread_context import ThreadContext

#: Where each stage of analyze-csv begins and ends, in percent of the whole job.
_SPAN = {"reading": (0, 40), "analyzing": (40, 85), "narrating": (85, 88), "visualizing": (88, 100)}


_TASK = "Say in a few sentences what matters in these findings about a table. Add no facts."


class CsvRequest(BaseModel, extra="forbid"):
    """By default, *artifact* is the first file, its separator and encoding are detected, and of a
    workbook the first visible sheet with rows is read.
    """

    artifact: str | None = None
    separator: str | None = Field(None, pattern=r"^[\t !#-/:-@\[-`{-~]$")
    encoding: str | None = None
    sheet: str | None = Field(None, pattern=r"^[^\x00]{1,200}$", description="Of a workbook.")
    header: bool = Field(True, description="Whether the first line holds the column names.")
    charts_max: int = Field(8, ge=0, le=50)
    sentences_max: int = Field(8, ge=1, le=30)

    @field_validator("encoding")
    @classmethod
    def _codec(cls, name: str | None) -> str | None:
        try:  # encodings of text only: base64 is one of bytes
            b"a".decode(name or "utf-8", "replace")
            return name and codecs.lookup(name).name
        except LookupError as error:
            raise ValueError("this is not an encoding of text") from error


class TextRequest(BaseModel, extra="forbid"):
    """The text of a clinical protocol, as the add-in for Word sends it."""

    text: str
    ta: str | None = Field(None, description="The therapeutic area.")
    mode: str | None = Field(None, description="`document_truncated`: its first 20,000 characters.")
    user_id_hash: str | None = None


class CountdownRequest(BaseModel, extra="forbid"):
    steps: int = Field(10, ge=1, le=10_000)
    interval_s: float = Field(0.1, ge=0, le=60)


class FlakyRequest(BaseModel, extra="forbid"):
    fail_times: int = Field(2, ge=0, le=100)


def _report(ctx: ThreadContext) -> Callable[[str, float, str], None]:
    """Reports each percent of the whole job once, and stops the handler of a cancelled job."""
    reported = -1

    def report(stage: str, share: float, message: str) -> None:
        nonlocal reported
        ctx.check_cancelled()
        start, end = _SPAN[stage]
        percent = int(start + min(share, 1.0) * (end - start))
        if percent > reported:
            reported = percent
            ctx.progress(percent, 100, stage=stage, message=message)

    return report


@handler("analyze-csv")
def analyze_csv(ctx: ThreadContext, payload: CsvRequest) -> dict[str, Any]:
    """Profile an uploaded CSV file, or a sheet of a workbook (Excel, OpenDocument): columns,
    correlations, sentences, and charts as artifacts.

    The result is bounded in size. A file that cannot be read fails the job for good.
    """
    try:  # what the extra brings is imported only once it is needed
        from eventjobs.demo.csv.charts import draw_charts
        from eventjobs.demo.csv.narrative import narrate
        from eventjobs.demo.csv.profile import profile_csv
        from eventjobs.demo.csv.reader import CsvFile
        from eventjobs.demo.csv.workbook import is_workbook, read_sheet
    except ImportError as error:
        message = "This job needs packages that are missing: pip install 'eventjobs[demo]'"
        raise JobError("demo_extra_missing", message, retryable=False) from error

    ctx.sleep(DemoSettings().simulated_slow_processing_s)
    report = _report(ctx)
    with tempfile.TemporaryDirectory(prefix="eventjobs-csv-") as workspace:
        source, notes = ctx.input(payload.artifact), []
        separator, encoding = payload.separator or "", payload.encoding or ""
        if is_workbook(source):
            report("reading", 0, "Reading the workbook")
            sheet = read_sheet(source, payload.sheet or "", Path(workspace), ctx.check_cancelled)
            source, separator, encoding, notes = sheet.path, ",", "utf-8", [sheet.note]
        file = CsvFile(source, report, separator, encoding, payload.header)
        profile = profile_csv(file, Path(workspace))
    profile["notes"] = notes + profile["notes"]
    ctx.log("profiled", rows=profile["rows"], notes=profile["notes"])
    report("narrating", 0, "Putting the numbers into words")
    sentences = list(islice(narrate(profile), payload.sentences_max))
    insights = _insights(ctx, " ".join(sentences))
    charts: list[str] = []
    for name, title, svg in islice(draw_charts(profile), payload.charts_max):
        report("visualizing", len(charts) / payload.charts_max, f"Chart of {title}")
        charts.append(f"chart-{len(charts) + 1:02}-{name}.svg")
        ctx.artifact(charts[-1], svg, "image/svg+xml")
    report("visualizing", 1, "Done")
    return {**profile, "sentences": sentences, "insights": insights, "charts": charts}


def _insights(ctx: ThreadContext, findings: str) -> dict[str, str]:
    """The *findings* in the words of the language model; as they are where there is none."""
    settings = DemoSettings()

    def fallback(*_: Any) -> dict[str, str]:
        return {"text": findings, "by": "narrative"}

    if settings.openrouter_api_key is None or not findings:
        return fallback()

    def ask_model() -> dict[str, str]:
        ctx.check_cancelled()
        return {"text": asyncio.run(ask(settings, _TASK, findings)), "by": settings.llm_model}

    breaker = ctx.breaker("llm", **settings.llm_circuit)
    name = f"LLM call ({settings.llm_model})"
    retrying = ctx.retrying(name, attempts=settings.llm_retry_attempts, on=LLMBusy)
    return cast(dict[str, str], breaker.call(retrying, ask_model, fallback=fallback))


@on_completion("analyze-csv", name="story")
async def link_story(job: CompletedJob) -> dict[str, str]:
    """The story of an analyzed file: its sentences, charts and numbers, which the job has."""
    return {"id": f"story_{UUID(job.job_id).hex}", "url": f"/v1/jobs/{job.job_id}"}


@handler("analyze-text")
def analyze_text(ctx: ThreadContext, payload: TextRequest) -> dict[str, Any]:
    """Suggestions for the text of a clinical protocol, each with its place in the text."""
    if not payload.text.strip():
        raise JobError("text_empty", "There is no text to analyze.", retryable=False)

    ctx.sleep(DemoSettings().simulated_slow_processing_s)

    def report(share: float, message: str) -> None:
        ctx.check_cancelled()
        ctx.progress(round(share * 100), 100, stage="analyzing", message=message)

    result = review(payload.text, truncate=payload.mode == "document_truncated", report=report)
    report(1.0, "Done")
    return {**result, "ta": payload.ta, "mode": payload.mode}


@handler("countdown")
async def countdown(ctx: Context, payload: CountdownRequest) -> dict[str, int]:
    """Wait *steps* times, telling of each."""
    for step in range(payload.steps):
        ctx.progress(step, payload.steps, stage="counting", message=f"{payload.steps - step} to go")
        await asyncio.sleep(payload.interval_s)
    ctx.progress(payload.steps, payload.steps, stage="counting", message="Done")
    return {"steps": payload.steps}


@handler("flaky")
async def flaky(ctx: Context, payload: FlakyRequest) -> dict[str, int]:
    """Fail in the first *fail_times* attempts, then succeed."""
    if ctx.attempt <= payload.fail_times:
        raise JobError("flaky", f"Attempt {ctx.attempt} fails, as it was asked to.")
    return {"attempts": ctx.attempt}


@handler("noop")
async def noop(ctx: Context, payload: Any) -> None:
    """Nothing, at once."""
