"""Commands that call a service with the client, and what they print when a call fails."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import typer

from eventjobs.cli import standard_streams
from eventjobs.cli.errors import EXIT_REFUSED, EXIT_UNREACHABLE, complain, exit_on_error, fail
from eventjobs.cli.job_text import status_text
from eventjobs.cli.output import emit
from eventjobs.cli.setting_values import read_settings
from eventjobs.client import ApiError, Client, Unreachable, WrongAddress
from eventjobs.client.requests import JSONObject
from eventjobs.client.settings import ClientSettings

#: What to do when the service needs another credential.
CREDENTIAL_HINT = "Set EVENTJOBS_TOKEN to an API key; `eventjobs keys create` makes one."
#: What to do when there is no service.
HINT = "start one with `eventjobs serve`, or name another with --url or EVENTJOBS_URL"


def run_with_client(url: str, command: Callable[[Client], Awaitable[None]]) -> None:
    """Run *command* with a client of the service. An error is one line and an exit code."""

    async def run() -> None:
        async with client:
            await command(client)

    try:
        with exit_on_error():
            client = Client(url, token=read_settings(ClientSettings, {}).token_text)
            try:
                asyncio.run(run())
            except ApiError as error:
                fail(error.code, _detail(error), EXIT_REFUSED)
            except Unreachable as error:
                fail(error.code, f"{error.message}; {HINT}", EXIT_UNREACHABLE)
    except BrokenPipeError:  # the reader of the output has gone
        standard_streams.discard_output()
        raise typer.Exit(standard_streams.EXIT_PIPE_CLOSED) from None
    except OSError as error:
        fail("file", str(error))
    except (LookupError, TypeError):
        if client.is_confirmed:
            raise
        detail = f"what answers at {client.url}, is not eventjobs"
        fail(WrongAddress.code, detail, EXIT_UNREACHABLE)


def run_for_each_job(
    url: str,
    ids: list[str],
    json: bool,
    command: Callable[[Client, str], Awaitable[JSONObject | None]],
) -> None:
    """Run *command* for one job after the other. A refusal of one does not stop the others."""

    async def run(client: Client) -> None:
        refused = False
        for job_id in ids:
            try:
                job = await command(client, job_id)
            except ApiError as error:
                refused = True
                complain(error.code, f"{job_id}: {_detail(error)}")
                continue
            if json and job is not None:
                emit(job)
            elif not json:
                emit(f"{job_id}  {'deleted' if job is None else status_text(job)}")
        raise typer.Exit(EXIT_REFUSED if refused else 0)

    run_with_client(url, run)


def _detail(error: ApiError) -> str:
    fields = [f"{each.get('field')}: {each.get('message')}" for each in error.errors]
    detail = f"{error.detail} ({'; '.join(fields)})" if fields else error.detail
    return f"{detail} {CREDENTIAL_HINT}" if error.status == HTTPStatus.UNAUTHORIZED else detail
