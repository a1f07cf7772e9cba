"""Commands about types, queues, schedules and breakers, and pausing."""

import re
from pathlib import Path

from tests.support.cli import Tool
from tests.support.servers import Server, start

ID = r"[0-9a-f-]{36}"


TIME = r"[0-9-]{10}T[0-9:]{8}Z"


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a table, by their first cell."""
    return {first: rest for first, *rest in (line.split("\t") for line in text.splitlines())}


def test_types_are_listed(tool: Tool) -> None:
    tool.ok("pause", "type", "copy", "--reason", "not\x1bnow")
    table = rows(tool.ok("types"))
    assert table["call"][0::4] == ["out", "10/m"]
    assert table["call"][3:] == ["2", "10/m", ""]
    assert table["echo"][3:] == ["-", "-", ""]
    assert re.fullmatch(rf"paused since {TIME}: not\ufffdnow", table["copy"][-1])
    tool.ok("resume", "type", "copy")
    types = {each["type"]: each for each in tool.json("types", "--json")}
    assert (types["call"]["concurrency"], types["copy"]["paused"]) == (2, None)


def test_queues_are_listed(tool: Tool) -> None:
    tool.ok("pause", "queue", "idle")
    tool.ok("submit", "echo", "--queue", "idle")
    table = rows(tool.ok("queues"))
    assert table["idle"][:3] == ["1", "0", "-"]
    assert re.fullmatch(rf"paused since {TIME}", table["idle"][-1])
    assert table["default"][-1] == ""
    tool.ok("resume", "queue", "idle")
    assert {"default", "out"} <= {each["queue"] for each in tool.json("queues", "--json")}


def test_breakers_are_listed_with_the_job_that_found_out(tool: Tool) -> None:
    job_id = tool.run("submit", "call", "--wait").stdout.split()[0]
    state, until, *_, job = rows(tool.ok("breakers"))["relay"]
    assert (state, job) == ("open", job_id)
    assert re.fullmatch(TIME, until)
    [breaker] = tool.json("breakers", "--json")
    assert (breaker["name"], breaker["threshold"]) == ("relay", 1)


def test_a_schedule_is_listed_and_paused_also_over_a_restart(folder: Path, tmp_path: Path) -> None:
    def server() -> Server:
        return start(tmp_path / "data", "--app", "shop", PYTHONPATH=str(folder))

    first = server()
    tool = Tool(first.url, tmp_path)
    row = rows(tool.ok("schedules"))["nightly"]
    assert row[:3] == ["0 3 * * *", "Europe/Oslo", "echo"]
    assert re.fullmatch(TIME, row[3])
    assert row[4:] == ["-", "-", ""]
    line = tool.ok("pause", "schedule", "nightly", "--reason", "too much")
    assert re.fullmatch(rf"schedule nightly is paused since {TIME}: too much; next -\n", line)
    stop(first)

    again = server()
    tool = Tool(again.url, tmp_path)
    row = rows(tool.ok("schedules"))["nightly"]
    assert row[3] == "-"
    assert re.fullmatch(rf"paused since {TIME}: too much", row[-1])
    line = tool.ok("resume", "schedule", "nightly")
    assert re.fullmatch(rf"schedule nightly is not paused; next {TIME}\n", line)
    [schedule] = tool.json("schedules", "--json")
    assert (schedule["name"], schedule["paused"]) == ("nightly", None)
    run = tool.run("pause", "schedule", "nihgtly")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: unknown_schedule: there is no schedule 'nihgtly'")
    stop(again)


def stop(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert server.process.stdout is not None
    server.process.stdout.close()


def test_a_type_is_paused_and_resumed(tool: Tool) -> None:
    line = tool.ok("pause", "type", "echo", "--reason", "not now")
    assert re.fullmatch(
        r"type echo is paused since [0-9T:-]+Z: not now; \d+ waiting, \d+ running\n", line
    )
    job_id = tool.ok("submit", "echo", "--queue", "slow", "--concurrency-key", "k").strip()
    [job] = tool.json("list", "--queue", "slow", "--json")
    assert (job["job_id"], job["status"], job["concurrency_key"]) == (job_id, "queued", "k")
    assert tool.ok("why", job_id).startswith("queued  paused_type  type echo is paused by http ")
    [explanation] = tool.json("why", job_id, "--json")
    assert [each["code"] for each in explanation["reasons"]] == ["paused_type"]
    [state] = tool.json("resume", "type", "echo", "--json")
    assert state["paused"] is None
    assert tool.ok("resume", "queue", "slow").startswith("queue slow is not paused; ")
    tool.ok("watch", job_id)


def test_what_cannot_be_paused_is_told(tool: Tool) -> None:
    result = tool.run("pause", "type", "nothing")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unknown_type: ")
    assert tool.run("pause", "job", "x").exit_code == 2
