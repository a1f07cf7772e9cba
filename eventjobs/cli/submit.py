"""The command `eventjobs submit`."""

from typing import Annotated, Any, Literal, NoReturn

import typer

from eventjobs.cli.arguments import (
    AsJson,
    MaxWait,
    Url,
    parse_file,
    parse_payload,
    parse_seconds,
    parse_time,
    time_after,
    without_unset,
)
from eventjobs.cli.errors import EXIT_REFUSED, fail
from eventjobs.cli.job_text import job_details
from eventjobs.cli.output import emit
from eventjobs.cli.progress import print_connection_lost
from eventjobs.cli.session import run_with_client
from eventjobs.cli.watch import exit_after, show_progress
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.client.requests import JSONObject

ConcurrencyKey = Annotated[
    str | None, typer.Option(help="Of jobs with the same, one runs at once.")
]
Content = Annotated[
    str | None, typer.Argument(metavar="[PAYLOAD]", help="JSON, @FILE, or - for stdin.")
]
Artifacts = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]PATH", help="A file; repeatable.")
]
After = Annotated[list[str] | None, typer.Option(metavar="ID", help="Not before; repeatable.")]
AfterFailure = Annotated[
    Literal["cancel", "run"] | None, typer.Option(help="If one fails. [cancel]")
]


def submit(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Which handler does it.")],
    payload: Content = None,
    artifact: Artifacts = None,
    tag: Annotated[list[str] | None, typer.Option(help="To find it by; repeatable.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher is sooner.")] = None,
    queue: Annotated[str | None, typer.Option(help="What it waits in.")] = None,
    concurrency_key: ConcurrencyKey = None,
    run_at: Annotated[str | None, typer.Option(help="Not before this time.")] = None,
    delay: Annotated[str | None, typer.Option(help="Not before so long: 90, 90s, 5m, 2h.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Runs, at most.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Longest run, in seconds.")] = None,
    ttl: Annotated[str | None, typer.Option(help="Hidden so long after its end: 90s, 2h.")] = None,
    after: After = None,
    after_failure: AfterFailure = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: one key is one job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="The same, and show it.")] = False,
    max_wait: MaxWait = None,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job and print its id. Safe to repeat with the same --key."""
    if delay is not None and (key is not None or run_at is not None):
        fail("usage", "--delay counts from now; with --key or --run-at it would be another time")
    fields: dict[str, Any] = {
        "tags": tag,
        "priority": priority,
        "queue": queue,
        "concurrency_key": concurrency_key,
        "run_at": parse_time(run_at) or time_after(delay),
        "max_attempts": max_attempts,
        "timeout_s": timeout,
        "ttl_s": parse_seconds(ttl),
        "after": after,
        "after_failure": after_failure,
    }
    content = parse_payload(payload)
    files = dict(map(parse_file, artifact or []))

    async def run(client: Client) -> None:
        job = await client.submit(
            type, content, idempotency_key=key, artifacts=files, **without_unset(fields)
        )
        if wait or watch:
            async with exit_after(max_wait):
                await _finish(client, job, json=json, watch=watch)
        emit(job if json else job["job_id"])

    run_with_client(url, run)


async def _finish(client: Client, job: JSONObject, *, json: bool, watch: bool) -> NoReturn:
    """Wait until *job* has ended; the exit code is its outcome."""
    if not json:
        emit(job["job_id"])
    if watch:
        await show_progress(client, [job["job_id"]], {}, json=json)
    client.on_connection_lost = print_connection_lost
    job = await client.wait(job["job_id"])
    if not (watch and json):
        emit(job if json else job_details(job))
    raise typer.Exit(0 if job["status"] == "completed" else EXIT_REFUSED)
