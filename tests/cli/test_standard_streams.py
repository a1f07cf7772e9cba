"""Standard output: any text in any encoding, a reader that leaves, and a closed stream."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventjobs.cli import standard_streams
from tests.support.cli import Tool

TEXT = "ünï \U0001f600 … \udce9 \\"


@pytest.fixture
def own_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.stdout and sys.stderr of the test alone."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "iso-8859-15", "utf-8"])
@pytest.mark.usefixtures("own_streams")
def test_what_the_encoding_cannot_show_is_escaped_as_in_json(encoding: str) -> None:
    sys.stdout = io.TextIOWrapper(written := io.BytesIO(), encoding=encoding)
    sys.stderr = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    standard_streams.prepare()
    print(json.dumps({"text": TEXT}, ensure_ascii=False), flush=True)
    print(TEXT, file=sys.stderr, flush=True)
    assert json.loads(written.getvalue().decode(encoding)) == {"text": TEXT}


SHELL = {
    "a reader that leaves": ("{} list | true; exit ${{PIPESTATUS[0]}}", 3),
    "no output": ("{} list >&-", 3),
    "no output at all": ("{} list >&- 2>&-", 3),
    "a full disk": ("{} config > /dev/full", 1),
}


@pytest.mark.parametrize(("line", "status"), SHELL.values(), ids=SHELL.keys())
def test_an_output_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, line: str, status: int
) -> None:
    tool = Tool("http://127.0.0.1:1", tmp_path)
    command = line.format(" ".join(tool.command()))
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | tool.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status, ran.stderr
    assert ran.stderr.count("\n") <= 1, ran.stderr


def test_a_file_never_gets_the_number_of_an_output_that_was_closed(tmp_path: Path) -> None:
    """Otherwise the file would contain what a library writes to stderr."""
    script = (
        "import os; from eventjobs.cli import standard_streams; standard_streams.prepare();"
        " file = os.open('log.db', os.O_CREAT | os.O_RDWR); print('said');"
        " os.write(2, b'shouted'); os.write(file, b'%d' % (file > 2))"
    )
    command = f'{sys.executable} -c "{script}" <&- >&- 2>&-'
    environment = os.environ | Tool("", tmp_path).environment
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "log.db").read_bytes() == b"1"


def test_a_reader_that_has_had_enough_ends_the_command(tool: Tool) -> None:
    tool.ok("submit", "echo", "1", "--wait")
    for command in ("list", "list --json", "watch --type echo"):
        line = f"{' '.join(tool.command())} {command} | true; exit ${{PIPESTATUS[0]}}"
        environment = os.environ | tool.environment
        bash = ["timeout", "30", "bash", "-c", line]
        ran = subprocess.run(bash, env=environment, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (141, "")
