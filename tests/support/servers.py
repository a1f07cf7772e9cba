"""`eventjobs serve` in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Server:
    url: str
    process: subprocess.Popen[str]
    data: Path


def start(
    data: Path, *arguments: str, port: int = 0, under: Sequence[str] = (), **environment: str
) -> Server:
    """`eventjobs serve` on *data*, run by the command *under*, once it has printed its address."""
    command = [*under, sys.executable, "-m", "eventjobs", "serve", "--data", str(data)]
    with (data.parent / f"{data.name}.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | environment,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if "http://" not in line:
        process.kill()
        process.wait()
        process.stdout.close()
        raise AssertionError(f"the server did not start: {line!r}, see {data}.log")
    return Server("http://" + line.split("http://")[1].split()[0], process, data)


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """A server that is stopped at the end, and must exit with 0."""
    server = start(folder / "data", *arguments, port=0, **environment)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(30)
        assert server.process.stdout is not None
        server.process.stdout.close()
    assert code == 0
