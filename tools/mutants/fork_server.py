"""A plugin of pytest: it collects all tests once, and runs chosen ones in a fork for each change.

A start of pytest, and the collection of the tests, take longer than most tests that find a change.
"""

import gc
import json
import os
import select
import signal
import socket
import traceback
import types
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from _pytest.main import pytest_runtestloop as run_items

#: The environment variable with the number of the socket for requests and outcomes.
SOCKET = "EVENTJOBS_MUTANTS_SOCKET"
PASSED, FAILED, TIMED_OUT, BROKEN = "passed", "failed", "timed out", "broken"
#: The exit code of a fork that could not run its tests.
BROKEN_CODE = 99


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Serve requests until the socket is closed. No test is run in this process itself.

    A request is a line of JSON with `tests`, `timeout_s`, and the changed `path` and `line`.
    """
    items = {item.nodeid: item for item in session.items}
    functions = functions_by_path()
    # A fork that looks at every object, as a collection does, copies all of the memory.
    gc.freeze()
    with (
        socket.socket(fileno=int(os.environ[SOCKET])) as connection,
        connection.makefile() as lines,
    ):
        connection.sendall(b"ready\n")
        for line in lines:
            request = json.loads(line)
            session.items = [items[name] for name in request["tests"] if name in items]
            changed = functions.get(Path(request["path"] or ""), [])
            connection.sendall(_run_in_fork(session, changed, request).encode() + b"\n")
    return True


def _run_in_fork(
    session: pytest.Session, functions: list[types.FunctionType], request: dict[str, Any]
) -> str:
    child = os.fork()
    if child == 0:
        code = BROKEN_CODE
        try:
            os.setpgid(0, 0)
            if request["path"] is not None:
                replace_code(functions, Path(request["path"]), request["line"])
            session.config.option.maxfail = 1
            code = int(_fails(session))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    process = os.pidfd_open(child)
    ended, _, _ = select.select([process], [], [], request["timeout_s"])
    os.close(process)
    with suppress(ProcessLookupError):  # what its tests left behind would disturb the next
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not ended:
        return TIMED_OUT
    if status == BROKEN_CODE << 8:
        return BROKEN
    return PASSED if status == 0 else FAILED


def _fails(session: pytest.Session) -> bool:
    try:
        run_items(session)
    except (pytest.Session.Failed, pytest.Session.Interrupted):
        return True
    return session.testsfailed > 0


def functions_by_path() -> dict[Path, list[types.FunctionType]]:
    """The functions of all modules that are imported."""
    functions = defaultdict(list)
    for function in gc.get_objects():
        if type(function) is types.FunctionType:  # isinstance() asks proxies for their class
            functions[function.__code__.co_filename].append(function)
    resolved: defaultdict[Path, list[types.FunctionType]] = defaultdict(list)
    for name, each in functions.items():
        resolved[Path(name).resolve()] += each
    return resolved


def replace_code(functions: list[types.FunctionType], path: Path, line: int) -> None:
    """Give the functions of a module the code that its file has now.

    *line* is the changed one. A function that begins after it may have moved, and is the same.
    """
    module = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    new = {
        (code.co_qualname, code.co_firstlineno): code
        for code in _code_objects(module)
        if code.co_firstlineno <= line
    }
    for function in functions:
        old = function.__code__
        code = new.get((old.co_qualname, old.co_firstlineno))
        if code is not None and code != old:
            function.__code__ = code


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_objects(constant)
