"""A command that fails: one line on stderr, and the exit code."""

import pytest

from tests.support.cli import Tool
from tests.support.foreign_servers import Reply, answering, not_speaking_http


@pytest.mark.parametrize(
    ("arguments", "status", "beginning"),
    [
        (["submit", "nothing"], 1, "error: unknown_type: no handler for type 'nothing'"),
        (["submit", "echo", "{"], 2, "error: usage: PAYLOAD is not JSON"),
        (["submit", "echo", "@nowhere"], 2, "error: file: "),
        (["submit", "echo", "--artifact", "nowhere"], 2, "error: file: "),
        (["submit", "echo", "--run-at", "soon"], 2, "error: usage: 'soon' is not a time"),
        (["submit", "echo", "--delay", "soon"], 2, "error: usage: 'soon' is not a delay"),
        (["submit", "echo", "--delay", "1", "--key", "k"], 2, "error: usage: --delay counts"),
        (["submit", "echo", "--priority", "9999"], 1, "error: invalid_input: "),
        (["watch", "x", "--tag", "y"], 2, "error: usage: give ids or filters"),
        (["show", "x"], 1, "error: job_not_found: "),
        (["cancel", "x"], 1, "error: job_not_found: x: "),
        (["list", "--url", "nowhere"], 2, "error: invalid_input: nowhere is not an address"),
        (["list", "--url", "http://127.0.0.1:1"], 3, "error: unreachable: http://127.0.0.1:1 "),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tool: Tool, arguments: list[str], status: int, beginning: str
) -> None:
    run = tool.run(*arguments)
    assert (run.exit_code, run.stdout) == (status, "")
    assert run.stderr.startswith(beginning)
    assert run.stderr.count("\n") == 1


ID = "00000000-0000-4000-8000-000000000000"


JSON = "application/json"


#: The response at the address, the exit code of a command, and the beginning of its line.
RESPONSES = {
    "a page": (
        Reply(200),
        3,
        "wrong_address: what answers at {url}, with text/html, is not",
    ),
    "another service's JSON": (
        Reply(200, JSON, b'{"hello": 1}'),
        3,
        "wrong_address: what answers",
    ),
    "a list": (
        Reply(200, JSON, b"[1]"),
        3,
        "wrong_address: what answers at {url}, with ",
    ),
    "nothing": (Reply(200, JSON, b""), 3, "wrong_address: what answers at {url}"),
    "a redirect": (
        Reply(308, headers={"Location": "https://jobs.example/"}),
        3,
        "wrong_address: {url} sends us to https://jobs.example/",
    ),
    "no such page": (
        Reply(404),
        1,
        "http_404: {url} answered 404 Not Found, not as eventjobs",
    ),
    "another version": (Reply(426), 1, "http_426: {url} answered 426 Upgrade Required"),
    "a login": (
        Reply(401),
        1,
        "http_401: {url} answered 401 Unauthorized, not as eventjobs",
    ),
    "a proxy without us": (Reply(502), 1, "http_502: {url} answered 502 Bad Gateway"),
    "a problem that is a list": (Reply(404, JSON, b"[]"), 1, "http_404: "),
}


COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["submit", "noop"],
    ["show", ID],
    ["why", ID],
    ["logs", ID],
    ["types"],
    ["schedules"],
    ["webhooks", "list"],
]


def line_of(tool: Tool, url: str, *arguments: str) -> tuple[int, str]:
    """The exit code and the one line of a command that fails."""
    tool.environment["EVENTJOBS_URL"] = url
    run = tool.run(*arguments)
    assert run.stdout == ""
    assert run.stderr.startswith("error: "), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    return run.exit_code, run.stderr.removeprefix("error: ")


@pytest.mark.parametrize("name", RESPONSES)
def test_a_command_says_that_it_is_not_eventjobs(tool: Tool, name: str) -> None:
    response, status, beginning = RESPONSES[name]
    with answering(response) as url:
        for command in COMMANDS:
            code, line = line_of(tool, url, *command)
            assert (code, line.startswith(beginning.format(url=url))) == (status, True), line
        code, line = line_of(tool, url, "watch", ID)
        assert code in {1, 3}


def test_a_command_says_which_way_it_is_to_be_spoken_to(tool: Tool) -> None:
    with answering(Reply(200), tls=True) as url:
        code, line = line_of(tool, url, "list")
        other = url.replace("http:", "https:")
        assert (code, line.startswith(f"wrong_address: {url} speaks TLS")) == (3, True), line
        assert other in line
        code, line = line_of(tool, other, "list")  # no authority has signed its certificate
        assert (code, line.startswith(f"wrong_address: {other} cannot be")) == (3, True), line
    with answering(Reply(200)) as url:
        other = url.replace("http:", "https:")
        code, line = line_of(tool, other, "list")
        assert (code, line.startswith(f"wrong_address: {other} cannot be")) == (3, True), line
    with not_speaking_http() as url:
        code, line = line_of(tool, url, "list")
        assert (code, "does not speak HTTP" in line) == (3, True), line


def test_without_a_service_the_line_says_what_to_do(tool: Tool) -> None:
    code, line = line_of(tool, "http://127.0.0.1:1", "list")
    assert code == 3
    assert line.startswith("unreachable: http://127.0.0.1:1 cannot be reached: Connection refused")
    assert "`eventjobs serve`" in line
    assert "EVENTJOBS_URL" in line
