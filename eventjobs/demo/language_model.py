"""Asks a language model, over OpenAI's protocol."""

import aiohttp
import orjson

from eventjobs.demo.extract import CHARS_MAX
from eventjobs.demo.settings import DemoSettings
from eventjobs.errors import JobError

ANSWER_BYTES_MAX = 1_000_000

#: Statuses, besides 500 and above, that the same request may not get a moment later.
_PASSING = frozenset({408, 409, 425, 429})


class LLMFailed(JobError):
    """The model gave no usable answer."""

    def __init__(self, message: str) -> None:
        super().__init__("llm_failed", message)


class LLMBusy(LLMFailed):
    """The same, and it may give one to the same request a moment later."""


async def ask(settings: DemoSettings, task: str, text: str) -> str:
    """The answer of the model to *task* about *text*. Raises LLMFailed."""
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
            return _answer(response.status, body)
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
