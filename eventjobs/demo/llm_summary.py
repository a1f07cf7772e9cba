"""llm-summary: a language model sums a text up; when it cannot be had, the text does it itself."""

import asyncio
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, Field, model_validator

from eventjobs.demo.extract import CHARS_MAX, extract
from eventjobs.demo.language_model import LLMBusy, ask
from eventjobs.demo.settings import DemoSettings
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler

TASK = "Sum up the user's text in at most {} sentences, in its language. Answer with those alone."


class SummaryRequest(BaseModel, extra="forbid"):
    """Either *text*, or *artifact*, the name of an uploaded text file."""

    text: str | None = None
    artifact: str | None = None
    sentences_max: int = Field(3, ge=1, le=20)

    @model_validator(mode="after")
    def _one_of_them(self) -> "SummaryRequest":
        if (self.text is None) == (self.artifact is None):
            raise ValueError("give a text or the name of an artifact, and not both")
        return self


@handler("llm-summary")
async def llm_summary(ctx: Context, payload: SummaryRequest) -> dict[str, Any]:
    """A summary of a text, and who made it: the model, or `extract`, its own sentences."""
    settings = DemoSettings()
    text = payload.text
    if text is None:
        text = await asyncio.to_thread(_read, ctx.input(payload.artifact))
    if not text.strip():
        raise JobError("text_empty", "There is no text to sum up.", retryable=False)
    await ctx.sleep(settings.simulated_slow_processing_s)

    def fallback(*_: Any) -> dict[str, Any]:
        return {"summary": extract(text, payload.sentences_max), "by": "extract"}

    if settings.openrouter_api_key is None:
        why = "OPENROUTER_API_KEY is not set: no language model was asked"
        ctx.issue("llm_failure_fallback", why)
        return fallback()
    breaker = ctx.breaker("llm", **settings.llm_circuit)
    name = f"LLM call ({settings.llm_model})"
    retrying = ctx.retrying(name, attempts=settings.llm_retry_attempts, on=LLMBusy)
    task = TASK.format(payload.sentences_max)

    async def ask_model() -> dict[str, Any]:
        return {"summary": await ask(settings, task, text), "by": settings.llm_model}

    summary = await breaker.call(retrying, ask_model, fallback=fallback)
    return cast(dict[str, Any], summary)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(CHARS_MAX)
