"""llm-summary: a model that answers, fails, hangs, talks nonsense and recovers; and none at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import FormData, web

from eventjobs.demo.extract import extract
from eventjobs.demo.handlers import analyze_csv, analyze_text
from eventjobs.demo.llm_summary import llm_summary
from eventjobs.domain.events import LogWritten
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.external_service import http_server
from tests.support.http_client import Client
from tests.support.waiting import events_of, time_passing

TEXT = "Trials need sites. The weather was fine. Sites recruit patients for trials. We see."
OPENING = "Circuit breaker OPENING: {0} failures within 300s window (threshold: {0})"


class Model:
    """An OpenAI-compatible service, and how it is."""

    def __init__(self) -> None:
        self.state = "up"
        self.then: str | None = None  # after the next request
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        state, self.state = self.state, self.then or self.state
        match state:
            case "up":
                message = {"role": "assistant", "content": " A summary. "}
                return web.json_response({"choices": [{"message": message}]})
            case "hangs":
                await self.over.wait()
            case "nonsense":
                return web.json_response({"choices": []})
            case "silent":
                return web.json_response({"choices": [{"message": {"content": None}}]})
            case "endless":
                return web.Response(body=b" " * 1_100_000)
            case "away":
                raise web.HTTPFound("http://127.0.0.1:1/")
        return web.json_response({"error": "no"}, status=int(state))


@asynccontextmanager
async def serve(model: Model) -> AsyncIterator[Model]:
    async with http_server(model.answer, "POST", "/v1/chat/completions") as port:
        model.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield model
        finally:
            model.over.set()


@pytest.fixture
async def model(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Model]:
    async with serve(Model()) as model:
        monkeypatch.setenv("LLM_BASE_URL", model.url + "/")
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-1")
        monkeypatch.setenv("LLM_CIRCUIT_THRESHOLD", "2")
        monkeypatch.setenv("EVENTJOBS_LLM_TIMEOUT_S", "0.2")
        yield model


async def summed_up(asked: Client, **payload: Any) -> Any:
    """A job that sums TEXT up, as it ended."""
    job_id = (await asked.submit("llm-summary", payload or {"text": TEXT}))["job_id"]
    await asked.service.wait(job_id)
    return (await asked.get(f"/v1/jobs/{job_id}")).json


async def texts(asked: Client, job: Any) -> list[str | None]:
    events = await events_of(asked.service, job["job_id"])
    return [each.message for each in events if isinstance(each, LogWritten)]


async def test_a_model_sums_the_text_up(client: Connect, model: Model) -> None:
    asked = await client(llm_summary)
    job = await summed_up(asked)
    assert job["result"] == {"summary": "A summary.", "by": "deepseek/deepseek-r1"}
    assert job["issues"] == []
    assert await texts(asked, job) == ["LLM call (deepseek/deepseek-r1): Attempt 1/2"]
    [request] = model.requests
    assert request["model"] == "deepseek/deepseek-r1"
    assert request["messages"][1] == {"role": "user", "content": TEXT}
    assert model.keys == ["Bearer sk-or-1"]


async def test_an_uploaded_text_is_summed_up(client: Connect, model: Model) -> None:
    asked = await client(llm_summary)
    content = TEXT.encode() + b"\xff"
    stored = await asked("POST", "/v1/artifacts", data=content)
    given = {"text.txt": stored.json["sha256"]}
    submitted = await asked.submit("llm-summary", {"artifact": "text.txt"}, artifacts=given)
    assert (await asked.service.wait(submitted["job_id"])).result["summary"] == "A summary."
    assert model.requests[0]["messages"][1]["content"] == TEXT + "\ufffd"


@pytest.mark.parametrize(
    ("state", "requests", "says"),
    [
        ("500", 2, "it answered with status 500"),
        ("429", 2, "it answered with status 429"),
        ("hangs", 2, "there was no answer within 0.2 s"),
        ("401", 1, "it answered with status 401"),
        ("away", 1, "it answered with status 302"),
        ("nonsense", 1, "the answer is not a chat completion"),
        ("silent", 1, "the answer is empty"),
        ("endless", 1, "the answer has more than 1000000 bytes"),
    ],
)
async def test_without_a_usable_answer_the_text_sums_itself_up(
    client: Connect, model: Model, state: str, requests: int, says: str
) -> None:
    asked = await client(llm_summary, call_delay_s=0)
    model.state = state
    job = await summed_up(asked)
    assert job["status"] == "completed"
    assert job["result"] == {"summary": extract(TEXT, 3), "by": "extract"}
    [issue] = job["issues"]
    assert issue["code"] == "llm_failure_fallback"
    assert issue["message"] == f"a fallback was used: llm_failed: {says}"
    assert len(model.requests) == requests
    assert "sk-or-1" not in orjson.dumps(await asked.service.jobs.load(job["job_id"])).decode()


async def test_a_model_that_is_not_there_is_done_without(
    client: Connect, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_BASE_URL", "http://127.0.0.1:1/v1")
    asked = await client(llm_summary, call_delay_s=0)
    job = await summed_up(asked)
    assert job["result"]["by"] == "extract"
    assert "it cannot be reached" in job["issues"][0]["message"]


async def test_a_second_try_may_succeed(client: Connect, model: Model) -> None:
    asked = await client(llm_summary, call_delay_s=0)
    model.state, model.then = "503", "up"
    job = await summed_up(asked)
    assert (job["result"]["by"], job["issues"]) == ("deepseek/deepseek-r1", [])
    assert await texts(asked, job) == [
        "LLM call (deepseek/deepseek-r1): Attempt 1/2",
        "LLM call (deepseek/deepseek-r1): Attempt 2/2",
    ]


async def test_a_model_that_fails_is_left_alone_until_it_may_have_recovered(
    client: Connect, model: Model, clock: FakeClock
) -> None:
    asked = await client(llm_summary, clock=clock, call_delay_s=0)
    model.state = "hangs"
    await summed_up(asked)
    model.state = "500"
    opened = await summed_up(asked)
    assert OPENING.format(2) in await texts(asked, opened)
    asked_before = len(model.requests)
    spared = await summed_up(asked)
    assert (await texts(asked, spared))[0] == "Circuit breaker is OPEN. Using fallback."
    assert spared["issues"][0]["code"] == "llm_failure_fallback"
    [breaker] = (await asked.get("/v1/breakers")).json["breakers"]
    assert (breaker["name"], breaker["state"], breaker["job_id"]) == (
        "llm",
        "open",
        opened["job_id"],
    )
    model.state = "up"
    await clock.advance(599)
    await summed_up(asked)
    assert len(model.requests) == asked_before
    await clock.advance(1)
    mended = await summed_up(asked)
    assert mended["result"]["by"] == "deepseek/deepseek-r1"
    assert (await texts(asked, mended))[-1] == "Circuit breaker cooldown complete. Closing circuit."


async def test_failures_that_lie_far_apart_do_not_count_together(
    client: Connect, model: Model, clock: FakeClock
) -> None:
    asked = await client(llm_summary, clock=clock, call_delay_s=0)
    model.state = "401"
    for _ in range(4):
        await summed_up(asked)
        await clock.advance(301)
    assert len(model.requests) == 4


async def test_without_a_key_no_model_is_asked_and_the_job_says_so(
    client: Connect, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY")
    asked = await client(llm_summary)
    job = await summed_up(asked)
    assert (job["status"], job["result"]["by"]) == ("completed", "extract")
    assert job["issues"][0]["message"] == (
        "OPENROUTER_API_KEY is not set: no language model was asked"
    )
    assert not model.requests


async def test_what_cannot_be_summed_up_is_refused(client: Connect, model: Model) -> None:
    asked = await client(llm_summary)
    for wrong in ({}, {"text": "a", "artifact": "b"}, {"text": "a", "sentences_max": 0}):
        reply = await asked("POST", "/v1/jobs", {"type": "llm-summary", "payload": wrong})
        assert reply.status == 422
    job = await summed_up(asked, text=" \n")
    assert (job["status"], job["error"]["code"]) == ("failed", "text_empty")


@pytest.mark.parametrize("type", ["llm-summary", "analyze-text"])
async def test_slow_work_can_be_simulated(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, type: str
) -> None:
    """The timeout that an earlier deployment tried out with these two variables."""
    monkeypatch.setenv("SIMULATED_SLOW_PROCESSING_SECONDS", "20")
    monkeypatch.setenv("JOB_TIMEOUT_SECONDS", "10")
    asked = await client(llm_summary, analyze_text, clock=clock)
    submitted = await asked.submit(type, {"text": TEXT}, max_attempts=1)
    job = await time_passing(clock, asked.service.wait(submitted["job_id"]))
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "timeout")


# --- the text's own sentences


def test_the_sentences_that_say_most_are_kept_in_their_order() -> None:
    assert extract(TEXT, 2) == "Trials need sites. Sites recruit patients for trials."
    assert extract(TEXT, 99) == TEXT


@pytest.mark.parametrize("text", ["", "...", "\n\n", "word", "a" * 300_000, "Ähm? " * 50_000])
def test_any_text_has_a_summary_of_bounded_length(text: str) -> None:
    assert len(extract(text, 3)) <= 3 * 401


async def test_an_uploaded_table_has_insights_of_the_model_or_its_own(
    client: Connect, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await client(analyze_csv, dialects="004", call_delay_s=0)

    async def insights() -> tuple[dict[str, str], list[str], list[str]]:
        """The insights of an uploaded table, its sentences, and the codes of its issues."""
        form = FormData()
        form.add_field("file", b"a,b\n1,2\n3,4\n", filename="sales_demo.csv")
        upload = await asked("POST", "/api/upload", data=form)
        await asked.service.wait(upload.json["job_id"])
        status = (await asked.get(f"/api/job-status/{upload.json['jobId']}")).json
        assert status["status"] == "completed"
        result = (await asked.get(status["resultUrl"].removeprefix(asked.listening.url))).json
        codes = [each["code"] for each in status.get("issues", ())]
        return result["insights"], result["sentences"], codes

    by_model = {"text": "A summary.", "by": "deepseek/deepseek-r1"}
    assert (await insights())[::2] == (by_model, [])
    model.state = "401"  # an invalid key
    own, sentences, codes = await insights()
    assert own == {"text": " ".join(sentences), "by": "narrative"}
    assert codes == ["llm_failure_fallback"]
    monkeypatch.delenv("OPENROUTER_API_KEY")
    own, sentences, codes = await insights()
    assert (own["by"], codes, len(model.requests)) == ("narrative", [], 2)
