"""Detaches forked children from their parent: descriptors, signal handlers, event loop."""

import asyncio
import os
import signal
import socket
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

#: Descriptors that belong to this process alone, each with the identity of its file: the number may
#: belong to another file when a fork happens.
_PRIVATE: dict[int, tuple[int, int]] = {}
_FAILED = 1


class _Fork(threading.local):
    """The fork that a thread is making now."""

    blocked: set[int] | None = None
    loop: asyncio.AbstractEventLoop | None = None


_fork = _Fork()


def close_in_children(descriptor: int) -> None:
    """Close *descriptor* in every process that is forked from this one from now on.

    A process with such a descriptor also keeps its signals to itself: a forked child handles none
    of them with the handlers of its parent.
    """
    _PRIVATE[descriptor] = _identity(descriptor)


def create_private_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket as aiohttp's connectors make it, closed in forked children."""
    family, type, protocol, _, _ = address
    result = socket.socket(family, type, protocol)
    close_in_children(result.fileno())
    return result


def is_forking() -> bool:
    """Whether this thread is making a fork. An exception of a signal handler is lost then."""
    return _fork.blocked is not None


class OwnProcess:
    """The process in which this object was created."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_forked_child(self) -> bool:
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raises RuntimeError in a process that was forked since."""
        if self.is_forked_child:
            raise RuntimeError("a process that a handler has forked cannot use its context")


class EndsIfForked(OwnProcess):
    """A process that was forked inside the `with` block ends where it would leave the block.

    It ends like a child of multiprocessing: with the code of SystemExit, without `atexit`, and
    without running anything that belongs to the parent.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_forked_child:
            _end(error)


def _end(error: BaseException | None) -> None:
    code: Any = None
    if isinstance(error, SystemExit):
        code = error.code
    elif error is not None:
        traceback.print_exception(error)
        code = _FAILED
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = _FAILED
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit((code or 0) & 0xFF)


# --- around a fork


def _before() -> None:
    if not _PRIVATE:
        return
    # A signal that reaches the child before its handlers are reset would be written to the parent.
    _fork.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _fork.loop = asyncio._get_running_loop()


def _after_in_parent() -> None:
    if _fork.blocked is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.blocked)
        _fork.blocked, _fork.loop = None, None


def _after_in_child() -> None:
    try:
        if _fork.blocked is not None and _close_private():
            _reset_signals()
            if _fork.loop is not None:
                _fork.loop.call_soon(_end, RuntimeError("a forked process has no event loop"))
    finally:
        _after_in_parent()


def _close_private() -> bool:
    """Close the private descriptors. Whether there were any."""
    descriptors = [number for number, file in _PRIVATE.items() if _is_open_on(number, file)]
    _PRIVATE.clear()
    if not descriptors:
        return False
    # Each number stays in use: objects of the parent will close it, and must not close a new file.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
    return True


def _reset_signals() -> None:
    # Python writes every signal to this descriptor, which the parent reads.
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        # Also for SIGINT: a KeyboardInterrupt that is raised during the fork would be lost. Python
        # does not know the handler of libuv for SIGCHLD.
        if callable(handler) or (number == signal.SIGCHLD and handler == signal.SIG_DFL):
            signal.signal(number, signal.SIG_DFL)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _is_open_on(descriptor: int, file: tuple[int, int]) -> bool:
    try:
        return _identity(descriptor) == file
    except OSError:
        return False


os.register_at_fork(
    before=_before,
    after_in_parent=_after_in_parent,
    after_in_child=_after_in_child,
)
