"""The command line `eventjobs`: every command, in the order in which the help lists them."""

import sys
from collections.abc import Callable

import typer

from eventjobs.cli import arguments as typed
from eventjobs.cli import standard_streams
from eventjobs.cli.arguments import REFUSED
from eventjobs.cli.jobs import (
    cancel,
    delete,
    download,
    list_jobs,
    logs,
    retry,
    show,
    submit,
    watch,
)
from eventjobs.cli.queues import breakers, pause, queues, resume, schedules, types, why
from eventjobs.cli.secret import new_key, secret
from eventjobs.cli.serve import config, serve
from eventjobs.cli.webhooks import webhooks
from eventjobs.cli.worker import worker

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Submit jobs, watch them live, and serve them.",
    epilog="Exit codes: 0, done, and all jobs that were waited for completed; 1, refused, or a"
    " job failed or was cancelled; 2, used wrongly; 3, the service cannot be reached;"
    " 4, not ended within --max-wait; 130, interrupted; 141, whoever read the output has gone.",
)

COMMANDS: tuple[Callable[..., None], ...] = (
    *(serve, worker, config, secret, new_key, submit, watch, list_jobs, show, logs, cancel),
    *(retry, delete, why, types, queues, schedules, breakers, pause, resume, download),
)
for command in COMMANDS:
    app.command("list" if command is list_jobs else None)(command)
app.add_typer(webhooks, name="webhooks")


def main() -> None:
    standard_streams.prepare()
    try:
        try:
            app(prog_name="eventjobs")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        standard_streams.give_up()
        sys.exit(standard_streams.PIPE_CLOSED)
    except OSError as error:
        standard_streams.give_up()
        typed.complain("output", str(error))
        sys.exit(REFUSED)
