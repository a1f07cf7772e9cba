"""Seeing and steering a service as a whole, from the command line and with the client."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventjobs.client import ApiError, Client
from tests.support.cli import APP, Tool
from tests.support.servers import Server, serving, start

MORE = """
from eventjobs import schedule

nightly = schedule("nightly", "0 3 * * *", "echo", 1, timezone="Europe/Oslo")

@handler("call", queue="out", concurrency=2, rate="10/m", max_attempts=1)
async def call(context, payload):
    async with context.breaker("relay", threshold=1):
        raise JobError("no_answer", "it does not answer")
"""
ID = r"[0-9a-f-]{36}"
TIME = r"[0-9-]{10}T[0-9:]{8}Z"
#: Allowed, and nobody is there: what is sent is tried for days.
NOBODY = "http://127.0.0.1:1/hook"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a module of handlers in it."""
    folder = tmp_path_factory.mktemp("steering")
    (folder / "shop.py").write_text(APP + MORE)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(
        folder, "--app", "shop", PYTHONPATH=str(folder), EVENTJOBS_OUTBOUND_ALLOW="127.0.0.0/8"
    ) as server:
        yield server


@pytest.fixture
def tool(server: Server, tmp_path: Path) -> Tool:
    return Tool(server.url, tmp_path)


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a table, by their first cell."""
    return {first: rest for first, *rest in (line.split("\t") for line in text.splitlines())}


# --- what there is


def test_types_are_listed(tool: Tool) -> None:
    tool.ok("pause", "type", "copy", "--reason", "not\x1bnow")
    told = rows(tool.ok("types"))
    assert told["call"][0::4] == ["out", "10/m"]
    assert told["call"][3:] == ["2", "10/m", ""]
    assert told["echo"][3:] == ["-", "-", ""]
    assert re.fullmatch(rf"paused since {TIME}: not\ufffdnow", told["copy"][-1])
    tool.ok("resume", "type", "copy")
    found = {each["type"]: each for each in tool.json("types", "--json")}
    assert (found["call"]["concurrency"], found["copy"]["paused"]) == (2, None)


def test_queues_are_listed(tool: Tool) -> None:
    tool.ok("pause", "queue", "slow")
    tool.ok("submit", "echo", "--queue", "slow")
    told = rows(tool.ok("queues"))
    assert told["slow"][:3] == ["1", "0", "-"]
    assert re.fullmatch(rf"paused since {TIME}", told["slow"][-1])
    assert told["default"][-1] == ""
    tool.ok("resume", "queue", "slow")
    assert {"default", "out"} <= {each["queue"] for each in tool.json("queues", "--json")}


def test_breakers_are_listed_with_the_job_that_found_out(tool: Tool) -> None:
    job_id = tool.run("submit", "call", "--wait").stdout.split()[0]
    state, until, *_, found_by = rows(tool.ok("breakers"))["relay"]
    assert (state, found_by) == ("open", job_id)
    assert re.fullmatch(TIME, until)
    [told] = tool.json("breakers", "--json")
    assert (told["name"], told["threshold"]) == ("relay", 1)


# --- pausing a schedule


def test_a_schedule_is_listed_and_paused_also_over_a_restart(folder: Path, tmp_path: Path) -> None:
    def server() -> Server:
        return start(tmp_path / "data", "--app", "shop", PYTHONPATH=str(folder))

    first = server()
    tool = Tool(first.url, tmp_path)
    told = rows(tool.ok("schedules"))["nightly"]
    assert told[:3] == ["0 3 * * *", "Europe/Oslo", "echo"]
    assert re.fullmatch(TIME, told[3])
    assert told[4:] == ["-", "-", ""]
    said = tool.ok("pause", "schedule", "nightly", "--reason", "too much")
    assert re.fullmatch(rf"schedule nightly is paused since {TIME}: too much; next -\n", said)
    stop(first)

    again = server()
    tool = Tool(again.url, tmp_path)
    told = rows(tool.ok("schedules"))["nightly"]
    assert told[3] == "-"
    assert re.fullmatch(rf"paused since {TIME}: too much", told[-1])
    said = tool.ok("resume", "schedule", "nightly")
    assert re.fullmatch(rf"schedule nightly is not paused; next {TIME}\n", said)
    [found] = tool.json("schedules", "--json")
    assert (found["name"], found["paused"]) == ("nightly", None)
    run = tool.run("pause", "schedule", "nihgtly")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: unknown_schedule: there is no schedule 'nihgtly'")
    stop(again)


def stop(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert server.process.stdout is not None
    server.process.stdout.close()


# --- webhooks


def test_a_webhook_is_added_listed_told_again_and_removed(tool: Tool) -> None:
    job_id = tool.ok("submit", "echo", "1", "--wait").split()[0]
    event = ("--event", "JobCompleted", "--event", "JobSubmitted")
    said = tool.ok("webhooks", "add", NOBODY, *event, "--type", "echo", "--owner", "nobody")
    other = re.match(rf"webhook      ({ID})\nsecret       whsec_\S+\n", said)
    assert other is not None
    [added] = tool.json("webhooks", "add", NOBODY, "--type", "echo", "--json")
    webhook_id = added["webhook_id"]
    assert added["secret"].startswith("whsec_")

    told = rows(tool.ok("webhooks", "list"))
    assert told[other[1]][:4] == [NOBODY, "JobCompleted,JobSubmitted", "echo", "nobody"]
    assert told[webhook_id][:4] == [NOBODY, "ends", "echo", "-"]
    assert told[webhook_id][4].isdigit()
    listed = {each["webhook_id"]: each for each in tool.json("webhooks", "list", "--json")}
    assert listed[webhook_id]["position"] == added["position"]
    assert "secret" not in listed[webhook_id]

    position = tool.json("show", job_id, "--events")[0]["position"]
    again = ("webhooks", "redeliver", webhook_id, "--after", position, "--limit", "1")
    delivery = tool.ok(*again).strip()
    assert re.fullmatch(ID, delivery)
    assert delivery in rows(tool.ok("webhooks", "deliveries", webhook_id))
    found = tool.json("webhooks", "deliveries", webhook_id, "--limit", "1", "--json")
    assert [each["payload"]["webhook"] for each in found] == [webhook_id]
    assert tool.ok("webhooks", "deliveries", webhook_id, "--status", "completed") == ""
    assert tool.ok("webhooks", "deliveries", other[1]) == ""

    for each in (webhook_id, other[1], webhook_id):
        assert tool.ok("webhooks", "remove", each) == f"{each}  removed\n"
    assert tool.ok("webhooks", "list") == ""


NONE = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["add", "http://10.0.0.1/"], 1, "error: outbound_refused: "),
        (["add", NOBODY, "--event", "JobDone"], 1, "error: invalid_input: no such event (events: "),
        (["remove", NONE], 1, "error: webhook_not_found: "),
        (["deliveries", NONE], 1, "error: webhook_not_found: "),
        (["redeliver", "x", "--after", "0"], 1, "error: webhook_not_found: "),
        (["list", "--url", "http://127.0.0.1:1"], 3, "error: unreachable: "),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tool: Tool, arguments: list[str], status: int, told: str
) -> None:
    run = tool.run("webhooks", *arguments)
    assert (run.exit_code, run.stdout) == (status, "")
    assert run.stderr.startswith(told)
    assert run.stderr.count("\n") == 1


def test_positions_are_needed_to_tell_again(tool: Tool) -> None:
    assert tool.run("webhooks", "redeliver", NONE).exit_code == 2


async def test_the_client_does_the_same(server: Server) -> None:
    async with Client(server.url) as client:
        assert "echo" in [each["type"] for each in await client.types()]
        assert "default" in [each["queue"] for each in await client.queues()]
        assert [each["name"] for each in await client.schedules()] == ["nightly"]
        assert (await client.pause("schedule", "nightly", "why"))["paused"]["reason"] == "why"
        assert (await client.resume("schedule", "nightly"))["paused"] is None
        job = await client.wait((await client.submit("echo"))["job_id"])
        webhook = await client.add_webhook(NOBODY, types=["echo"], events=["JobCompleted"])
        webhook_id = webhook["webhook_id"]
        assert webhook.pop("secret")
        assert await client.webhook(webhook_id) in await client.webhooks()
        [delivery] = await client.redeliver(webhook_id, after=job["position"] - 1, limit=1)
        assert [each["job_id"] async for each in client.deliveries(webhook_id)] == [delivery]
        await client.remove_webhook(webhook_id)
        with pytest.raises(ApiError) as refused:
            await client.webhook(webhook_id)
        assert refused.value.code == "webhook_not_found"
        assert isinstance(await client.breakers(), list)
