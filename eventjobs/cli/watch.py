"""The command `eventjobs watch`, and how commands wait for jobs to end."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from eventjobs.cli import progress
from eventjobs.cli.arguments import AsJson, MaxWait, Queue, Statuses, Tag, Types, Url, without_unset
from eventjobs.cli.errors import EXIT_REFUSED, EXIT_TIMEOUT, fail
from eventjobs.cli.output import emit
from eventjobs.cli.session import run_with_client
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.clock import SystemClock, timeout


def watch(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]")] = None,
    status: Statuses = None,
    type: Types = None,
    tag: Tag = None,
    queue: Queue = None,
    forever: Annotated[bool, typer.Option("--forever", help="Also those yet to come.")] = False,
    max_wait: MaxWait = None,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show these jobs, or all that match, until they have ended.

    Exits with 0 when all of them completed, and with 1 when one failed or was cancelled.
    """
    filters = without_unset({"status": status, "type": type, "tag": tag, "queue": queue})
    if ids and filters:
        fail("usage", "give ids or filters, not both")

    async def run(client: Client) -> None:
        async with exit_after(None if forever else max_wait):
            counts = await show_progress(client, ids or [], filters, json=json, forever=forever)
        if not json and len(ids or []) != 1:
            numbers = [f"{number} {status}" for status, number in sorted(counts.items())]
            emit(", ".join(numbers) or "no job matches")
        raise typer.Exit(0 if set(counts) <= {"completed"} else EXIT_REFUSED)

    run_with_client(url, run)


async def show_progress(
    client: Client, ids: list[str], filters: dict[str, Any], *, json: bool, forever: bool = False
) -> Counter[str]:
    """Show jobs until they have ended. Returns numbers by status."""
    display = progress.make_display(json=json)
    client.on_connection_lost = display.connection_lost
    try:
        return await progress.follow(client, display, ids, filters, forever=forever)
    finally:
        display.close()


@asynccontextmanager
async def exit_after(max_wait_s: float | None) -> AsyncIterator[None]:
    """End the command when the block takes longer."""
    try:
        async with timeout(SystemClock(), max_wait_s):
            yield
    except TimeoutError:
        fail("max_wait", f"not ended within {max_wait_s:g} s; it goes on", EXIT_TIMEOUT)
