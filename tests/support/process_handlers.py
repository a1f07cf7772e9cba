"""Handlers that run in processes, in all the ways that end well and badly."""

import ctypes
import locale
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from eventjobs.errors import JobError
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext


class Order(BaseModel):
    item: str


@handler("work", process=True)
def work(context: ThreadContext, payload: Order) -> dict[str, Any]:
    print("this goes to", payload.item)  # to the service's stderr, and not among the messages
    context.log("begun", pid=os.getpid())
    for done in range(3):
        context.progress(done + 1, 3, stage=f"stage {done}")
    given = context.input("given.txt").read_bytes() if context.spec.artifacts else b""
    context.artifact("bytes.txt", given + b" and more", "text/plain")
    path = Path(tempfile.gettempdir()) / "file.txt"
    path.write_text("a file")
    context.artifact("file.txt", path)
    return {"item": payload.item, "pid": os.getpid(), "stdin": sys.stdin.read()}


@handler("empties", process=True, retry_delay_s=0)
def empties(context: ThreadContext, payload: Any) -> Any:
    if context.attempt == 1:
        payload.clear()
        context.spec.payload.clear()
        raise ValueError("again")
    return payload


@handler("pid", process=True)
def pid(context: ThreadContext, payload: Any) -> int:
    return os.getpid()


@handler("end", process=True)
def end(context: ThreadContext, payload: str) -> Any:
    """Ends in all kinds of ways."""
    match payload:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit code":
            os._exit(3)
        case "exit code 0":
            os._exit(0)
        case "another program":
            os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(4)"])
        case "segfault":
            ctypes.string_at(0)
        case "sys.exit":
            sys.exit(5)
        case "job error":
            raise JobError("no_tea", "there is no tea", retryable=False, details={"cups": [1, 2]})
        case "exception":
            raise ValueError("a \ud800 wrong value")
        case "not json":
            return {1, 2}
        case "too large":
            context.step("large", lambda: "x" * (17 * 2**20))
        case "bad name":
            context.artifact("../x", b"")
        case "no such file":
            context.artifact("x", Path("nowhere"))
        case "bad level":
            context.log("line", "loud")
    return None


@handler("large", process=True)
def large(context: ThreadContext, payload: int) -> str:
    return "x" * payload


@handler("loop", process=True)
def loop(context: ThreadContext, payload: Any) -> None:
    context.log("begun", pid=os.getpid())
    while True:
        pass


@handler("waits", process=True)
def waits(context: ThreadContext, payload: str) -> str:
    """Returns what comes out of a pipe."""
    context.log("begun", pid=os.getpid())
    return Path(payload).read_text()


@handler("tidy", process=True)
def tidy(context: ThreadContext, payload: Any) -> str | None:
    """Ends by itself when it is stopped, with a result or an error of its own."""
    try:
        context.log("begun", pid=os.getpid())
        threading.Event().wait()
    except BaseException:
        for each in threading.enumerate():
            if each.name not in ("MainThread", "service"):
                each.join()  # the thread that interrupts a handler does so once
        context.log("tidied up", cancelled=context.cancelled)
        if payload == "sleep":
            context.sleep(0.0)
            return "slept"
        if payload == "fail":
            raise RuntimeError("while it was tidied up") from None
        if payload == "choose":
            raise JobError("half_done", "Rows 1 to 9 are in.", retryable=False) from None
        if payload == "return":
            return "what there was"
        raise
    return None


@handler("deaf", process=True)
def deaf(context: ThreadContext, payload: Any) -> None:
    """Ignores being stopped, and has started another program."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    with tempfile.NamedTemporaryFile() as file:
        context.log("begun", pid=os.getpid(), other=other.pid, file=file.name)
        while True:
            signal.pause()


@handler("left", process=True)
def left(context: ThreadContext, payload: Any) -> int:
    """Leaves a thread behind that continues to report."""
    pause = threading.Event()

    def tell() -> None:
        while True:
            context.progress(99)
            context.log("from the job before")
            pause.wait(0.001)

    threading.Thread(target=tell, daemon=True).start()
    return os.getpid()


@handler("tells in a thread", process=True)
def tells_in_a_thread(context: ThreadContext, payload: Any) -> None:
    thread = threading.Thread(target=context.log, args=["from a thread"])
    thread.start()
    thread.join()


@handler("forks", process=True)
def forks(context: ThreadContext, payload: Any) -> list[Any]:
    """Uses processes of its own, as libraries do; ending them is a SIGTERM."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        mapped = pool.map(abs, [-1, 2])
    forked = os.fork()
    if forked == 0:
        try:
            context.log("from elsewhere")
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    return [mapped, os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])]


@handler("flood", process=True)
def flood(context: ThreadContext, payload: int) -> None:
    for number in range(payload):
        context.progress(number + 1, payload)
        context.log("line")
    logging.getLogger("somebody").warning("not in the way")


@handler("careful", process=True, max_attempts=1)
def careful(ctx: ThreadContext, payload: dict[str, Any]) -> Any:
    """Calls what fails `failures` times, with a breaker around retries."""
    failures = iter([True] * payload["failures"] + [False] * 9)

    def call() -> str:
        if payload["failures"] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if next(failures):
            raise ConnectionError("refused")
        return "answer"

    breaker = ctx.breaker("remote", threshold=1, window_s=60, cooldown_s=60)
    return breaker.call(ctx.retrying("remote", attempts=2), call, fallback=lambda call: "fallback")


@handler("sum in a process", process=True)
def sum_of_squares(ctx: ThreadContext, payload: list[int]) -> Any:
    ids = [ctx.submit("square", each, tags=["part"]) for each in payload]
    return sum(ctx.result(each) for each in ids)


@handler("logs_a_step", process=True)
def logs_a_step(context: ThreadContext, payload: Any) -> list[Any]:
    logging.getLogger("shop").info("from the %s", "process")
    results = [
        context.step("count", lambda: context.attempt),
        context.step("pair", lambda: {"pair": (1, 2)}),
    ]
    if context.attempt == 1:
        raise JobError("again", "once more")
    return results


@handler("dig in a process", process=True)
def dig_in_a_process(ctx: ThreadContext, depth: int) -> int:
    return 1 + ctx.result(ctx.submit("dig in a process", depth - 1)) if depth else 0


@handler("holds in a process", process=True)
def holds_in_a_process(ctx: ThreadContext, payload: str) -> Any:
    ctx.log("begun", pid=os.getpid())
    return ctx.result(payload or ctx.submit("hold"))


@handler("forks and returns", process=True)
def forks_and_returns(context: ThreadContext, payload: Any) -> Any:
    """Its children come out of it as well."""
    returned = os.fork()
    if returned == 0:
        return "from the child"
    exited = os.fork()
    if exited == 0:
        sys.exit(3)
    return [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in (returned, exited)]


os.environ["IMPORTED"] = "yes"


@handler("sees", process=True)
def sees(context: ThreadContext, payload: Any) -> dict[str, Any]:
    """What a job may find changed by the one before."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "directory": os.getcwd(),  # noqa: PTH109  it may be removed
        "imported": os.environ.get("IMPORTED"),
        "variables": sorted(os.environ),
        "umask": umask,
        "alarm": signal.getitimer(signal.ITIMER_REAL),
        "locale": locale.setlocale(locale.LC_ALL),
        "timeout": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
        "silence": logging.root.manager.disable,
        "temporary": tempfile.gettempdir(),
        "stdout": sys.stdout is None,
    }


@handler("leaves", process=True)
def leaves(context: ThreadContext, payload: str) -> None:
    match payload:
        case "directory":
            os.chdir("/")
        case "removed directory":
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
        case "variable":
            os.environ["TENANT"] = "acme"
        case "no variables":
            os.environ.clear()
        case "umask":
            os.umask(0o777)
        case "alarm":
            signal.alarm(1)
        case "locale":
            locale.setlocale(
                locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"
            )
        case "timeout":
            socket.setdefaulttimeout(0.1)
        case "recursion":
            sys.setrecursionlimit(500)
        case "silence":
            logging.disable(logging.CRITICAL)
        case "temporary":
            tempfile.tempdir = "/nowhere"
        case "stdout":
            sys.stdout = None
