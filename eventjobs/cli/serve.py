"""The commands `eventjobs serve` and `eventjobs config`."""

from typing import Annotated, Any, Literal

import typer

from eventjobs.cli.arguments import AsJson, Data, Host, Listen, LogFormat, Port, without_unset
from eventjobs.cli.errors import exit_on_error


def serve(
    host: Host = None,
    port: Port = None,
    listen: Listen = None,
    data: Data = None,
    application: Annotated[
        list[str] | None,
        typer.Option("--app", metavar="MODULE[:NAME]", help="Where handlers are; repeatable."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Run the demo's jobs, too.")] = False,
    dialects: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Front ends to serve, as 000,003. [with --demo: all]"),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(envvar="EVENTJOBS_LOG_LEVEL", help="Of the service's own log."),
    ] = "info",
    log_format: LogFormat = "auto",
) -> None:
    """Run the service until it is stopped.

    Prints its addresses once it is ready. Everything else is set by EVENTJOBS_* in the environment.
    The first SIGTERM or SIGINT lets running jobs finish for a while, the second gives them back
    at once. Exits with 1 when the data directory or the port is taken.
    """
    from eventjobs.cli.process import load_handlers
    from eventjobs.cli.service_process import run_service
    from eventjobs.cli.setting_values import read_settings
    from eventjobs.demo.settings import DemoSettings
    from eventjobs.observability.logging import configure
    from eventjobs.settings import Settings

    options: dict[str, Any] = {"host": host, "port": port, "listen": listen, "data": data}
    options["dialects"] = dialects
    with exit_on_error():
        configure(log_level, format=log_format)
        settings = read_settings(Settings, without_unset(options))
        if demo:
            read_settings(DemoSettings, {})  # wrong ones stop the start, and not each job
            if "dialects" not in settings.model_fields_set:
                settings = settings.model_copy(update={"dialects": ("all",)})
        run_service(settings, load_handlers(application or [], demo=demo))


def config(
    context: typer.Context,
    host: Host = None,
    port: Port = None,
    listen: Listen = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Show every setting, its value, and where the value came from; secrets are masked.

    Takes the options of serve, and shows what serve would run with. Variables that are set and
    change nothing are named on stderr.
    """
    from eventjobs.cli.setting_values import print_settings

    root: Any = context.find_root().command
    with exit_on_error():
        options = {"host": host, "port": port, "listen": listen, "data": data}
        print_settings(root, without_unset(options), json=json)
