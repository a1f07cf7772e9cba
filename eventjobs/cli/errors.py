"""How a command fails: one line on stderr, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from eventjobs.cli.output import printable
from eventjobs.errors import EventjobsError, InvalidInput

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_TIMEOUT = 4


def fail(code: str, detail: str, status: int = EXIT_USAGE) -> NoReturn:
    """Print an error and end the command."""
    complain(code, detail)
    raise typer.Exit(status)


def complain(code: str, detail: str) -> None:
    """Print an error to stderr."""
    typer.echo(f"error: {code}: {printable(detail)}", err=True)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the command at an EventjobsError: with EXIT_USAGE for bad input, else EXIT_REFUSED."""
    try:
        yield
    except InvalidInput as error:
        fail(error.code, error.message, EXIT_USAGE)
    except EventjobsError as error:
        fail(error.code, error.message, EXIT_REFUSED)
