"""The command `eventjobs worker`."""

from typing import Annotated, Literal

import typer

from eventjobs.cli.arguments import REFUSED, WRONG, fail
from eventjobs.client.client import DEFAULT_URL
from eventjobs.errors import DataDirectoryError, InvalidInput


def worker(
    application: Annotated[
        list[str],
        typer.Option("--app", metavar="MODULE[:NAME]", help="Where handlers are; repeatable."),
    ],
    url: Annotated[
        str, typer.Option(envvar="EVENTJOBS_URL", help="Address of the service.")
    ] = DEFAULT_URL,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs run at once. [256]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of them in threads. [16]")] = None,
    lease: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="Silence that loses a job. [the service's]"),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(envvar="EVENTJOBS_LOG_LEVEL", help="Of the worker's own log."),
    ] = "info",
) -> None:
    """Run jobs of a service that is elsewhere until told to stop.

    Prints its name once it is at work. A service that is not there is waited for. The first SIGTERM
    or SIGINT lets running jobs finish for a while, the second gives them back at once. Exits with 2
    when the service refuses it, or is none: what runs then may finish before.
    """
    from eventjobs.cli import setting_values as knobs
    from eventjobs.cli import worker_process
    from eventjobs.observability import logging as logs
    from eventjobs.settings import Settings
    from eventjobs.worker import worker

    given = {"concurrency": concurrency, "threads": threads}
    try:
        logs.configure(log_level)
        told = {name: value for name, value in given.items() if value is not None}
        worker_process.run(url, application, knobs.read(Settings, told), lease)
    except (InvalidInput, worker.WorkerRefused) as error:
        fail(error.code, error.message, WRONG)
    except DataDirectoryError as error:
        fail(error.code, error.message, REFUSED)
