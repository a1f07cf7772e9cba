"""The command `eventjobs worker`."""

from typing import Annotated, Literal

import typer

from eventjobs.cli.arguments import LogFormat, Url, without_unset
from eventjobs.cli.errors import EXIT_USAGE, exit_on_error, fail
from eventjobs.client.client import DEFAULT_URL


def worker(
    application: Annotated[
        list[str],
        typer.Option("--app", metavar="MODULE[:NAME]", help="Where handlers are; repeatable."),
    ],
    url: Url = DEFAULT_URL,
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
    log_format: LogFormat = "auto",
) -> None:
    """Run jobs of a service over HTTP until it is stopped.

    Prints its name once it takes jobs. A service that is not there is waited for. The API
    key in EVENTJOBS_TOKEN is sent with every request. The first SIGTERM
    or SIGINT lets running jobs finish for a while, the second gives them back at once. Exits with 2
    when the service refuses it, or is not eventjobs; jobs that run then may finish before.
    """
    from eventjobs.cli.setting_values import read_settings
    from eventjobs.cli.worker_process import run_worker
    from eventjobs.client.settings import ClientSettings
    from eventjobs.observability.logging import configure
    from eventjobs.settings import Settings
    from eventjobs.worker.worker import WorkerRefused

    options = {"concurrency": concurrency, "threads": threads}
    with exit_on_error():
        configure(log_level, format=log_format)
        try:
            settings = read_settings(Settings, without_unset(options))
            token = read_settings(ClientSettings, {}).token_text
            run_worker(url, application, settings, lease, token)
        except WorkerRefused as error:
            fail(error.code, error.message, EXIT_USAGE)
