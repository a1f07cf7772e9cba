"""Restores the process-wide state that a job has changed, for the next job of the process."""

import locale
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def restore_process_state() -> Iterator[None]:
    """Restore, after the body, process-wide state that is cheap to read and easily forgotten.

    Running threads, imported modules, open files and `random` stay as the body leaves them.
    """
    before = [_read(read) for read, _ in _STATE]
    try:
        yield
    finally:
        for (read, write), was in zip(_STATE, before, strict=True):
            if was is not _UNKNOWN and _read(read) != was:
                with suppress(OSError, ValueError, RecursionError):  # the directory was removed
                    write(was)


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except OSError:  # the working directory was removed
        return _UNKNOWN


_UNKNOWN = object()


def _environ() -> dict[bytes, bytes]:
    # Reading os.environ itself decodes every variable, which takes longer than a short job.
    return dict(vars(os.environ)["_data"])


def _set_environ(variables: dict[bytes, bytes]) -> None:
    for name in _environ().keys() - variables.keys():
        del os.environb[name]
    os.environb.update(variables)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_alarm(seconds: tuple[float, float]) -> None:
    signal.setitimer(signal.ITIMER_REAL, *seconds)


#: How each part of the state is read, and how it is written.
_STATE: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (os.getcwd, os.chdir),
    (_environ, _set_environ),
    (_umask, os.umask),
    (lambda: signal.getitimer(signal.ITIMER_REAL), _set_alarm),
    (lambda: locale.setlocale(locale.LC_ALL), lambda was: locale.setlocale(locale.LC_ALL, was)),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (lambda: logging.root.manager.disable, logging.disable),
    (lambda: tempfile.tempdir, lambda was: setattr(tempfile, "tempdir", was)),
    (lambda: sys.stdout, lambda was: setattr(sys, "stdout", was)),
    (lambda: sys.stderr, lambda was: setattr(sys, "stderr", was)),
)
