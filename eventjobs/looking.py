"""The commands that look at one job: `eventjobs show` and `eventjobs logs`."""

from contextlib import aclosing
from typing import Annotated

import typer

from eventjobs import watch as terminal
from eventjobs.asking import AsJson, Id, Job, Url, ask, say
from eventjobs.client import DEFAULT_URL, Client
from eventjobs.typed import fail


def show(
    job_id: Id,
    history: Annotated[bool, typer.Option("--history", help="What happened to it.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Every fact, as JSON.")] = False,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Its attempts, and what came too late.")
    ] = False,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show a job as it is now."""
    if history + events + receipt > 1:
        fail("usage", "give one of --history, --events and --receipt")

    async def run(client: Client) -> None:
        if events:
            async for event in client.events(job_id, follow=False):
                say(event)
        elif history:
            told = await client.history(job_id)
            say(told if json else terminal.history(told))
        elif receipt:
            told = await client.receipt(job_id)
            say(told if json else "\n".join(map(terminal.printable_line, told["text"])))
        else:
            job = await client.get(job_id)
            say(job if json else terminal.details(job) + await _trace(client, job))

    ask(url, run)


def logs(
    job_id: Id,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until it has ended; what is new at once.")
    ] = False,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print the log of a job: what its handler has told, a line each."""

    async def run(client: Client) -> None:
        async with aclosing(client.logs(job_id, follow=follow)) as lines:
            async for line in lines:
                say(line if json else terminal.log_line(line))
        if not json and (trace := await _trace(client, await client.get(job_id))):
            say(f"the newest attempt that failed:{trace}")

    ask(url, run)


async def _trace(client: Client, job: Job) -> str:
    """Where the newest attempt failed, while the job has an error."""
    if job["error"] is None:
        return ""
    return terminal.last_trace(await client.history(job["job_id"]))
