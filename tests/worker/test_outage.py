"""A worker whose service does not answer or refuses it: what is final, and what is logged."""

import json
from pathlib import Path

import pytest

from eventjobs.client import ApiError, ConnectionLost, Unreachable, WrongAddress
from eventjobs.worker.outage import LOG_INTERVAL_S, Outage
from tests.support.cli import Tool
from tests.support.clock import FakeClock
from tests.support.foreign_servers import Reply, answering
from tests.support.log_lines import capture_logs

APP = """
from eventjobs import handler

@handler("shout")
def shout(context, payload):
    return payload.upper()
"""


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    (tmp_path / "shop.py").write_text(APP)
    return Tool("", tmp_path)


def refusal(status: int, code: str, detail: str) -> Reply:
    body = {"status": status, "code": code, "detail": detail}
    return Reply(status, "application/problem+json", json.dumps(body).encode())


REFUSALS = {
    "a page": (
        Reply(200),
        "wrong_address: what answers at {url}, with text/html, is not",
    ),
    "another host": (
        refusal(421, "misdirected", "Loopback names only."),
        "misdirected: {url} refuses this worker: Loopback names only.",
    ),
    "no such type": (
        refusal(422, "unknown_type", "no handler for type 'shout'"),
        "unknown_type: {url} refuses this worker: no handler for type 'shout'; serve its handler",
    ),
}


@pytest.mark.parametrize("there", REFUSALS)
def test_a_worker_that_is_refused_says_so_and_ends_with_2(tool: Tool, there: str) -> None:
    response, detail = REFUSALS[there]
    with answering(response) as url:
        ran = tool.spawn("worker", "--app", "shop", "--url", url, "--log-level", "error")
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: {detail.format(url=url)}"), ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr


def problem(status: int, code: str) -> ApiError:
    return ApiError(status, code, "so it is")


async def is_final(error: ApiError | Unreachable, *, confirmed: bool) -> bool:
    outage = Outage(FakeClock())
    final = outage.is_final(error, confirmed=confirmed)
    assert outage.refused.done() is final
    return final


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 421, 422, 426, 501])
async def test_what_asking_again_does_not_mend_is_final(status: int) -> None:
    for confirmed in (False, True):
        assert await is_final(problem(status, "some_code"), confirmed=confirmed)
    assert await is_final(problem(status, f"http_{status}"), confirmed=False)
    # Something in front of a service that was there before: it may come back.
    assert not await is_final(problem(status, f"http_{status}"), confirmed=True)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507])
async def test_what_passes_is_waited_for(status: int) -> None:
    for confirmed in (False, True):
        assert not await is_final(problem(status, "overloaded"), confirmed=confirmed)
        assert not await is_final(problem(status, f"http_{status}"), confirmed=confirmed)


async def test_a_service_that_is_not_there_is_waited_for() -> None:
    for confirmed in (False, True):
        assert not await is_final(Unreachable("no"), confirmed=confirmed)
        assert not await is_final(ConnectionLost("no"), confirmed=confirmed)
    assert await is_final(WrongAddress("no"), confirmed=False)
    assert not await is_final(WrongAddress("no"), confirmed=True)


async def test_trouble_is_told_once_and_then_seldom() -> None:
    clock = FakeClock()
    outage = Outage(clock)
    with capture_logs() as lines:
        for _ in range(4 * round(LOG_INTERVAL_S)):
            outage.log(Unreachable("no"))
            await clock.advance(0.5)
        outage.end()
        outage.log(Unreachable("no"))
    durations = [line["for_s"] for line in lines if line["log_level"] == "warning"]
    assert durations == [0, LOG_INTERVAL_S, 0]
