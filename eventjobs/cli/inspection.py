"""The commands `eventjobs inspect ...`: other commands, by the questions that redis-cli answers."""

import typer

from eventjobs.cli.jobs import list_jobs, show
from eventjobs.cli.queues import queues

inspect = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Ask what redis-cli is asked of other services: the same as show, queues and list.",
)

inspect.command("job")(show)
inspect.command("queue")(queues)
inspect.command("jobs")(list_jobs)
