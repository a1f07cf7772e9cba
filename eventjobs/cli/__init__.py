"""The command line `eventjobs`."""

import sys

import typer

from eventjobs.cli import standard_streams
from eventjobs.cli.errors import EXIT_REFUSED, complain
from eventjobs.cli.inspection import inspect
from eventjobs.cli.jobs import cancel, delete, download, list_jobs, logs, retry, show
from eventjobs.cli.keys import keys
from eventjobs.cli.queues import breakers, pause, queues, resume, schedules, types, why
from eventjobs.cli.secret import new_key, secret
from eventjobs.cli.serve import config, serve
from eventjobs.cli.submit import submit
from eventjobs.cli.watch import watch
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
    " 4, not ended within --max-wait; 130, interrupted; 141, the reader of the output has gone.",
)

# In the order of the help.
app.command("serve")(serve)
app.command("worker")(worker)
app.command("config")(config)
app.command("secret")(secret)
app.command("new-key")(new_key)
app.command("submit")(submit)
app.command("watch")(watch)
app.command("list")(list_jobs)
app.command("show")(show)
app.command("logs")(logs)
app.command("cancel")(cancel)
app.command("retry")(retry)
app.command("delete")(delete)
app.command("why")(why)
app.command("types")(types)
app.command("queues")(queues)
app.command("schedules")(schedules)
app.command("breakers")(breakers)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("download")(download)
app.add_typer(inspect, name="inspect")
app.add_typer(webhooks, name="webhooks")
app.add_typer(keys, name="keys")


def main() -> None:
    standard_streams.prepare()
    try:
        try:
            app(prog_name="eventjobs")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        standard_streams.discard_output()
        sys.exit(standard_streams.EXIT_PIPE_CLOSED)
    except OSError as error:
        standard_streams.discard_output()
        complain("output", str(error))
        sys.exit(EXIT_REFUSED)
