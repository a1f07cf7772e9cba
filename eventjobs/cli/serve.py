"""The commands `eventjobs serve` and `eventjobs config`."""

from typing import Annotated, Any, Literal

import typer

from eventjobs.cli.arguments import REFUSED, WRONG, Data, Host, Port, fail
from eventjobs.cli.session import AsJson, only_set
from eventjobs.errors import EventjobsError, InvalidInput


def serve(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    application: Annotated[
        list[str] | None,
        typer.Option("--app", metavar="MODULE[:NAME]", help="Where handlers are; repeatable."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Run the demo's jobs, too.")] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(envvar="EVENTJOBS_LOG_LEVEL", help="Of the service's own log."),
    ] = "info",
) -> None:
    """Run the service until it is told to stop.

    Prints its address once it is ready. Everything else is set by EVENTJOBS_* in the environment.
    The first SIGTERM or SIGINT lets running jobs finish for a while, the second gives them back
    at once. Exits with 1 when the data directory or the port is taken.
    """
    from eventjobs.cli import process, service_process
    from eventjobs.cli import setting_values as knobs
    from eventjobs.demo.settings import DemoSettings
    from eventjobs.observability.logging import configure
    from eventjobs.settings import Settings

    given: dict[str, Any] = {"host": host, "port": port, "data": data}
    try:
        configure(log_level)
        settings = knobs.read(Settings, only_set(given))
        if demo:
            knobs.read(DemoSettings, {})  # wrong ones are told of now, and not by each job
        service_process.run(settings, process.load(application or [], demo=demo))
    except InvalidInput as error:
        fail(error.code, error.message, WRONG)
    except EventjobsError as error:
        fail(error.code, error.message, REFUSED)


def config(
    context: typer.Context,
    host: Host = None,
    port: Port = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Show every setting, its value, and where the value came from; secrets are masked.

    Takes the options of serve, and shows what serve would run with. What is set and changes
    nothing is told on stderr.
    """
    from eventjobs.cli import setting_values as knobs

    root: Any = context.find_root().command
    try:
        knobs.show(root, only_set({"host": host, "port": port, "data": data}), json=json)
    except InvalidInput as error:
        fail(error.code, error.message, WRONG)
