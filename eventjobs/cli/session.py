"""What a command asks of the service, how its answer is printed, and how it goes wrong."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, Any

import orjson
import typer

from eventjobs.cli import output as terminal
from eventjobs.cli import standard_streams
from eventjobs.cli.arguments import REFUSED, UNREACHABLE, complain, fail
from eventjobs.client import ApiError, Client, Unreachable, WrongAddress
from eventjobs.errors import EventjobsError, InvalidInput

Job = dict[str, Any]

#: What to do when there is no service.
NEXT = "start one with `eventjobs serve`, or name another with --url or EVENTJOBS_URL"

Url = Annotated[str, typer.Option(envvar="EVENTJOBS_URL", help="Address of the service.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A job, by its id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Reason = Annotated[str | None, typer.Option(help="Why; told in the job's history.")]


def ask(url: str, run: Callable[[Client], Awaitable[None]]) -> None:
    """*run* with a client; what goes wrong is one line and an exit code."""

    async def connected() -> None:
        async with client:
            await run(client)

    try:
        client = Client(url)
        asyncio.run(connected())
    except ApiError as problem:
        fail(problem.code, _detail(problem), REFUSED)
    except Unreachable as error:
        fail(error.code, f"{error.message}; {NEXT}", UNREACHABLE)
    except InvalidInput as error:
        fail(error.code, error.message)
    except EventjobsError as error:
        fail(error.code, error.message, REFUSED)
    except BrokenPipeError:  # whoever read our output has had enough
        standard_streams.give_up()
        raise typer.Exit(standard_streams.PIPE_CLOSED) from None
    except OSError as error:
        fail("file", str(error))
    except (LookupError, TypeError):
        if client.is_confirmed:
            raise
        fail(WrongAddress.code, f"what answers at {client.url}, is not eventjobs", UNREACHABLE)


def each_job(
    url: str, ids: list[str], json: bool, command: Callable[[Client, str], Awaitable[Job | None]]
) -> None:
    """One after the other; what is refused for one is no reason to leave out the rest."""

    async def run(client: Client) -> None:
        refused = False
        for job_id in ids:
            try:
                job = await command(client, job_id)
            except ApiError as problem:
                refused = True
                complain(problem.code, f"{job_id}: {_detail(problem)}")
                continue
            if json and job is not None:
                emit(job)
            elif not json:
                emit(f"{job_id}  {'deleted' if job is None else terminal.says(job)}")
        raise typer.Exit(REFUSED if refused else 0)

    ask(url, run)


def _detail(problem: ApiError) -> str:
    fields = [f"{each.get('field')}: {each.get('message')}" for each in problem.errors]
    return f"{problem.detail} ({'; '.join(fields)})" if fields else problem.detail


def emit(value: str | Job) -> None:
    print(value if isinstance(value, str) else orjson.dumps(value).decode(), flush=True)


def show_all(
    found: Sequence[Job], head: Sequence[str], row: Callable[[Job], Iterable[object]], *, json: bool
) -> None:
    """What was *found*, as JSON or as a table with a *row* for each; None is a dash there."""
    if json:
        for each in found:
            emit(each)
        return
    cells = [["-" if each is None else terminal.printable(each) for each in row(x)] for x in found]
    terminal.grid(head, cells)


def only_set(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, [])}
