"""The command line `eventjobs`, and a module of handlers to serve."""

import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import orjson
from typer.testing import CliRunner, Result

from eventjobs.cli import app

ROOT = Path(__file__).parents[2]

APP = '''
import asyncio
import logging
from pathlib import Path
from eventjobs import JobError, handler, schedule

@handler("stepwise", max_attempts=1)
async def stepwise(context, payload):
    """Needs a file at *payload* for its second step."""
    context.log("begun\\x1b[31m", n=1)
    logging.getLogger("shop").info("logged")
    await context.step("a", lambda: 1)
    if not Path(payload).exists():
        raise JobError("no_file", "there is no file")
    return await context.step("b", lambda: 2)

@handler("echo")
async def echo(context, payload):
    context.progress(1, 2, stage="echoing", message="\\x1b[31mred\\x07\\nnext")
    return payload

@handler("fail", max_attempts=1)
async def fail(context, payload):
    raise JobError("broken", "it does not work")

@handler("copy")
async def copy(context, payload):
    await context.artifact("copy.bin", context.input().read_bytes())

@handler("until")
async def until(context, payload):
    """Runs until there is a file at *payload*."""
    context.progress(1, 4, stage="waiting")
    while not Path(payload).exists():
        await asyncio.sleep(0.01)
    return "it came"

@handler("call", queue="out", concurrency=2, rate="10/m", max_attempts=1)
async def call(context, payload):
    async with context.breaker("relay", threshold=1):
        raise JobError("no_answer", "it does not answer")

nightly = schedule("nightly", "0 3 * * *", "echo", 1, timezone="Europe/Oslo")

HANDLERS = [echo, fail, copy, until]
'''


class Tool:
    """`eventjobs` in *folder*, with the service at *url*; in this process, or in another."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {"EVENTJOBS_URL": url, "PYTHONPATH": str(ROOT)}

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "eventjobs", *map(str, arguments)]

    def run(self, *arguments: object, stdin: str = "") -> Result:
        with chdir(self.folder):
            runner = CliRunner(env=self.environment)
            return runner.invoke(app, list(map(str, arguments)), input=stdin)

    def spawn(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: object, stdin: str = "") -> str:
        run = self.run(*arguments, stdin=stdin)
        assert (run.exit_code, run.stderr) == (0, "")
        return run.stdout

    def json(self, *arguments: object, stdin: str = "") -> list[Any]:
        return [orjson.loads(line) for line in self.ok(*arguments, stdin=stdin).splitlines()]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
