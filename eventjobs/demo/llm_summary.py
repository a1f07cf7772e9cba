"""llm-summary: a language model sums a text up; when it cannot be had, the text does it itself."""

import asyncio
from pathlib import Path
from typing import Any, cast

import aiohttp
import orjson
from pydantic import BaseModel, Field, model_validator

from eventjobs.demo.extract import CHARS_MAX, extract
from eventjobs.demo.settings import DemoSettings
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler

ANSWER_BYTES_MAX = 1_000_000
TASK = "Sum up the user's text in at most {} sentences, in its language. Answer with those alone."

#: Statuses, besides 500 and above, that the same request may not get a moment later.
_PASSING = frozenset({408, 409, 425, 429})


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


class LLMFailed(JobError):
    """The model gave no usable answer."""

    def __init__(self, message: str) -> None:
        super().__init__("llm_failed", message)


class LLMBusy(LLMFailed):
    """The same, and it may give one to the same request a moment later."""


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
    breaker = ctx.breaker(
        "llm",
        threshold=settings.llm_circuit_threshold,
        window_s=settings.llm_circuit_window_s,
        cooldown_s=settings.llm_circuit_cooldown_s,
    )
    name = f"LLM call ({settings.llm_model})"
    retrying = ctx.retrying(name, attempts=settings.llm_retry_attempts, on=LLMBusy)
    task = TASK.format(payload.sentences_max)
    summary = await breaker.call(retrying, _ask, settings, task, text, fallback=fallback)
    return cast(dict[str, Any], summary)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(CHARS_MAX)


async def _ask(settings: DemoSettings, task: str, text: str) -> dict[str, Any]:
    """The summary of *text*, and the model that made it. Raises LLMFailed."""
    assert settings.openrouter_api_key is not None
    messages = [{"role": "system", "content": task}, {"role": "user", "content": text[:CHARS_MAX]}]
    request = {"model": settings.llm_model, "messages": messages}
    url = f"{settings.llm_base_url.rstrip('/')}/chat/completions"
    headers = {"Authorization": f"Bearer {settings.openrouter_api_key.get_secret_value()}"}
    limit = aiohttp.ClientTimeout(total=settings.llm_timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.post(url, json=request, headers=headers, allow_redirects=False) as response,
        ):
            body = b""
            async for block in response.content.iter_any():
                body += block
                if len(body) > ANSWER_BYTES_MAX:
                    raise LLMFailed(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
            return {"summary": _answer(response.status, body), "by": settings.llm_model}
    except TimeoutError as error:
        raise LLMBusy(f"there was no answer within {settings.llm_timeout_s:g} s") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise LLMBusy(f"it cannot be reached: {type(error).__name__}: {error}") from error


def _answer(status: int, body: bytes) -> str:
    """The text in a chat completion. Raises LLMFailed."""
    if status != 200:
        failed = LLMBusy if status in _PASSING or status >= 500 else LLMFailed
        raise failed(f"it answered with status {status}")
    try:
        text = orjson.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise LLMFailed("the answer is not a chat completion") from error
    if not isinstance(text, str) or not text.strip():
        raise LLMFailed("the answer is empty")
    return text.strip()
