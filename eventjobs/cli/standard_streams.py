"""Makes standard output and error open, and able to show any text."""

import codecs
import os
import sys
from io import TextIOWrapper

#: The exit code when the reader of the output has closed the pipe: 128 + SIGPIPE, as in a shell.
EXIT_PIPE_CLOSED = 141

_ESCAPE = "eventjobs-escape"


def prepare() -> None:
    """Escape what the terminal's encoding cannot show, and open streams that are closed.

    A file that is opened later would otherwise get the descriptor of stdout or stderr, and with
    it what a library writes to stderr.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    codecs.register_error(_ESCAPE, _escape)
    for each in (sys.stdout, sys.stderr):
        if isinstance(each, TextIOWrapper):
            each.reconfigure(errors=_ESCAPE)


def discard_output() -> None:
    """Send stdout to the null device: what is still buffered cannot be written."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escapes as in JSON (RFC 8259, section 7), so JSON stays valid: UTF-16, four digits each."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{text[i]:02x}{text[i + 1]:02x}" for i in range(0, len(text), 2)), error.end
