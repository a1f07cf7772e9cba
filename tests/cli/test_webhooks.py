"""`eventjobs webhooks`: add, list, redeliver, deliveries, remove."""

import re

import pytest

from tests.support.cli import Tool

ID = r"[0-9a-f-]{36}"


#: An allowed address without a service: deliveries are retried for days.
UNUSED = "http://127.0.0.1:1/hook"


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a table, by their first cell."""
    return {first: rest for first, *rest in (line.split("\t") for line in text.splitlines())}


def test_a_webhook_is_added_listed_told_again_and_removed(tool: Tool) -> None:
    job_id = tool.ok("submit", "echo", "1", "--wait").split()[0]
    event = ("--event", "JobCompleted", "--event", "JobSubmitted")
    text = tool.ok("webhooks", "add", UNUSED, *event, "--type", "echo", "--owner", "nobody")
    other = re.match(rf"webhook      ({ID})\nsecret       whsec_\S+\n", text)
    assert other is not None
    [added] = tool.json("webhooks", "add", UNUSED, "--type", "echo", "--json")
    webhook_id = added["webhook_id"]
    assert added["secret"].startswith("whsec_")

    table = rows(tool.ok("webhooks", "list"))
    assert table[other[1]][:4] == [UNUSED, "JobCompleted,JobSubmitted", "echo", "nobody"]
    assert table[webhook_id][:4] == [UNUSED, "ends", "echo", "-"]
    assert table[webhook_id][4].isdigit()
    listed = {each["webhook_id"]: each for each in tool.json("webhooks", "list", "--json")}
    assert listed[webhook_id]["position"] == added["position"]
    assert "secret" not in listed[webhook_id]

    position = tool.json("show", job_id, "--events")[0]["position"]
    again = ("webhooks", "redeliver", webhook_id, "--after", position, "--limit", "1")
    delivery = tool.ok(*again).strip()
    assert re.fullmatch(ID, delivery)
    assert delivery in rows(tool.ok("webhooks", "deliveries", webhook_id))
    jobs = tool.json("webhooks", "deliveries", webhook_id, "--limit", "1", "--json")
    assert [each["payload"]["webhook"] for each in jobs] == [webhook_id]
    assert tool.ok("webhooks", "deliveries", webhook_id, "--status", "completed") == ""
    assert tool.ok("webhooks", "deliveries", other[1]) == ""

    for each in (webhook_id, other[1], webhook_id):
        assert tool.ok("webhooks", "remove", each) == f"{each}  removed\n"
    assert tool.ok("webhooks", "list") == ""


NONE = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("arguments", "status", "beginning"),
    [
        (["add", "http://10.0.0.1/"], 1, "error: outbound_refused: "),
        (
            ["add", UNUSED, "--event", "JobDone"],
            1,
            "error: invalid_input: no such event (events: ",
        ),
        (["remove", NONE], 1, "error: webhook_not_found: "),
        (["deliveries", NONE], 1, "error: webhook_not_found: "),
        (["redeliver", "x", "--after", "0"], 1, "error: webhook_not_found: "),
        (["list", "--url", "http://127.0.0.1:1"], 3, "error: unreachable: "),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tool: Tool, arguments: list[str], status: int, beginning: str
) -> None:
    run = tool.run("webhooks", *arguments)
    assert (run.exit_code, run.stdout) == (status, "")
    assert run.stderr.startswith(beginning)
    assert run.stderr.count("\n") == 1


def test_positions_are_needed_to_tell_again(tool: Tool) -> None:
    assert tool.run("webhooks", "redeliver", NONE).exit_code == 2
