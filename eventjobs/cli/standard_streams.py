"""Standard output and error, as a command needs them: open, and able to take any text."""

import codecs
import os
import sys
from io import TextIOWrapper

#: The exit code of a command whose reader has closed the pipe, as a shell has it (128 + SIGPIPE).
PIPE_CLOSED = 141

_ESCAPE = "eventjobs-escape"


def prepare() -> None:
    """Escape what the terminal's encoding cannot show, and open what was closed at the start.

    A file that is opened later would otherwise get the number of stdout or stderr, and what a
    library writes there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    codecs.register_error(_ESCAPE, _escaped)
    for each in (sys.stdout, sys.stderr):
        if isinstance(each, TextIOWrapper):
            each.reconfigure(errors=_ESCAPE)


def give_up() -> None:
    """Write to nowhere from now on: what is still buffered cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """As in JSON (RFC 8259, section 7), so that JSON stays JSON: UTF-16, four digits each."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{text[i]:02x}{text[i + 1]:02x}" for i in range(0, len(text), 2)), error.end
