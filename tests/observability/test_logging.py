"""What the service logs: a line of JSON each, and no secret in it."""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
import structlog

from eventjobs.observability import logging as logs
from eventjobs.observability.redaction import REDACTED

KEY = "ej_live_1234_abcdef"


@contextmanager
def configuration(
    stream: io.StringIO, level: str = "info", format: logs.Format = "auto"
) -> Iterator[None]:
    before, root_level = logging.root.handlers[:], logging.root.level
    ours_level = logging.getLogger(logs.OURS).level
    logging.root.handlers.clear()
    logs.configure(level, stream, format)
    try:
        yield
    finally:
        structlog.reset_defaults()
        logging.root.handlers[:] = before
        logging.root.setLevel(root_level)
        logging.getLogger(logs.OURS).setLevel(ours_level)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the log goes during the test."""
    stream = io.StringIO()
    with configuration(stream):
        yield stream


def parse_lines(lines: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in lines.getvalue().splitlines()]


def test_a_line_has_its_level_its_logger_and_its_time(lines: io.StringIO) -> None:
    structlog.get_logger("eventjobs.here").debug("unseen")
    structlog.get_logger("eventjobs.here").warning("seen", jobs=3, text="a\nb")
    [line] = parse_lines(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "seen",
        "level": "warning",
        "logger": "eventjobs.here",
        "jobs": 3,
        "text": "a\nb",
    }


def test_what_libraries_log_is_logged_alike(lines: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").info("unseen")
    logging.getLogger("aiohttp.server").error("it broke: %s", KEY)
    [line] = parse_lines(lines)
    assert (line["logger"], line["level"]) == ("aiohttp.server", "error")
    assert line["event"] == f"it broke: {REDACTED}"


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "t0p"},
        {"Authorization": "Basic t0p"},
        {"user_password": ["t0p"]},
        {"headers": {"X-API-Key": "t0p", "Set-Cookie": "t0p"}},
        {"nested": [{"deep": {"client_secret": {"a": "t0p"}}}]},
        {"text": "sent ej_t0p_1234 there"},
        {"text": "Authorization: bearer t0p.t0p-t0p"},
        {"text": "signed with whsec_t0p+/t0p="},
        {"text": "a JWT: eyJt0p.eyJt0p.t0p_t0p"},
        {"bytes": b"whsec_t0p"},
        {"error": ValueError("ej_t0p")},
        {"ej_t0p": 1, "more": {"Bearer t0p": 2}},
    ],
)
def test_secrets_are_hidden_by_key_and_by_shape(lines: io.StringIO, fields: dict[str, Any]) -> None:
    structlog.get_logger().info("event", **fields)
    assert "t0p" not in lines.getvalue()
    assert REDACTED in lines.getvalue()


def test_what_is_no_secret_is_left_alone(lines: io.StringIO) -> None:
    fields = {"jobs": 3, "path": "/v1/jobs", "ok": True, "none": None, "list": [1, "bearer"]}
    structlog.get_logger().info("event", **fields)
    [line] = parse_lines(lines)
    assert line.items() >= fields.items()


def test_a_traceback_is_told_without_its_secrets(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"cannot use {KEY}")
    except ValueError:
        structlog.get_logger().exception("failed")
    [line] = parse_lines(lines)
    assert "Traceback" in line["exception"]
    assert f"cannot use {REDACTED}" in line["exception"]
    assert KEY not in lines.getvalue()


def test_a_terminal_gets_lines_for_people_and_no_local_variables() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with configuration(stream):
        try:
            hidden = f"{KEY}"
            raise ValueError("told")
        except ValueError:
            structlog.get_logger().exception("failed", key=hidden)
    assert "failed" in stream.getvalue()
    assert "ValueError: told" in stream.getvalue()
    assert KEY not in stream.getvalue()


def test_a_log_that_nobody_reads_any_more_does_not_end_the_service() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with configuration(Gone()):
        structlog.get_logger().info("nobody hears this")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_lines_in_a_terminal_have_colours_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    with configuration(terminal := Terminal()):
        structlog.get_logger("eventjobs.here").warning("seen", jobs=3)
    assert "seen" in terminal.getvalue()
    assert ("\x1b[" in terminal.getvalue()) is coloured


def test_the_format_is_a_setting() -> None:
    with configuration(terminal := Terminal(), format="json"):
        structlog.get_logger("eventjobs.here").warning("seen", jobs=3)
    [line] = parse_lines(terminal)
    assert (line["event"], line["jobs"]) == ("seen", 3)
    with configuration(pipe := io.StringIO(), format="console"):
        structlog.get_logger("eventjobs.here").warning("seen", jobs=3)
    assert "jobs=3" in pipe.getvalue()
    assert "\x1b[" not in pipe.getvalue()


def test_control_characters_of_a_text_are_escaped_in_readable_lines() -> None:
    hostile = "a\x1b[2J\n2026-01-01 [info] forged\u202e\x9b"
    with configuration(terminal := Terminal(), format="console"):
        structlog.get_logger("eventjobs.here").warning(hostile, path="/\x1b[0m", **{"k\ne\x07y": 1})
        try:
            raise ValueError(hostile)
        except ValueError:
            logs.get_logger("eventjobs.here").exception("failed", texts=[hostile])
    text = re.sub(r"\x1b\[\d*m", "", terminal.getvalue().replace("/\x1b", "BAD"))
    assert text.replace("\n", "").isprintable()
    assert "BAD" not in text
    assert "\n  2026-01-01 [info] forged\\u202e\\x9b\n" in text  # a traceback keeps its lines
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())
