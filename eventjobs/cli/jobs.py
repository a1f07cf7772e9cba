"""Commands about jobs: list, show, logs, cancel, retry, delete, download."""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from eventjobs.cli.arguments import (
    AsJson,
    Id,
    Ids,
    Queue,
    Reason,
    Statuses,
    Tag,
    Types,
    Url,
    parse_time,
    without_unset,
)
from eventjobs.cli.errors import fail
from eventjobs.cli.job_text import (
    history_text,
    job_details,
    log_line,
    newest_trace_text,
    print_jobs,
)
from eventjobs.cli.output import emit, printable_line
from eventjobs.cli.session import run_for_each_job, run_with_client
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.client.requests import JSONObject


def list_jobs(
    status: Statuses = None,
    type: Types = None,
    tag: Tag = None,
    queue: Queue = None,
    since: Annotated[str | None, typer.Option(help="Submitted at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Submitted before this time.")] = None,
    order: Annotated[Literal["newest", "oldest"], typer.Option()] = "newest",
    limit: Annotated[int, typer.Option(min=1, help="Jobs, at most.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="All that match.")] = False,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs: a table in a terminal, else tab-separated values."""
    filters: dict[str, Any] = {"status": status, "type": type, "tag": tag, "queue": queue}
    filters |= {"order": order, "since": parse_time(since), "until": parse_time(until)}

    async def run(client: Client) -> None:
        jobs: list[JSONObject] = []
        matching = client.list(limit=min(limit, 1000), **without_unset(filters))
        async with aclosing(matching):
            async for job in matching:
                if json:
                    emit(job)
                jobs.append(job)
                if len(jobs) == limit and not everything:
                    break
        if not json:
            print_jobs(jobs)

    run_with_client(url, run)


def show(
    job_id: Id,
    history: Annotated[bool, typer.Option("--history", help="What happened to it.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Every event, as JSON.")] = False,
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
                emit(event)
        elif history:
            past = await client.history(job_id)
            emit(past if json else history_text(past))
        elif receipt:
            attempts = await client.receipt(job_id)
            emit(attempts if json else "\n".join(map(printable_line, attempts["text"])))
        else:
            job = await client.get(job_id)
            emit(job if json else job_details(job) + await _error_trace(client, job))

    run_with_client(url, run)


def logs(
    job_id: Id,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until it has ended; what is new at once.")
    ] = False,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Print the log of a job, a line each."""

    async def run(client: Client) -> None:
        async with aclosing(client.logs(job_id, follow=follow)) as lines:
            async for line in lines:
                emit(line if json else log_line(line))
        if not json and (trace := await _error_trace(client, await client.get(job_id))):
            emit(f"the newest attempt that failed:{trace}")

    run_with_client(url, run)


async def _error_trace(client: Client, job: JSONObject) -> str:
    """The traceback of the newest attempt that failed, while the job has an error."""
    if job["error"] is None:
        return ""
    return newest_trace_text(await client.history(job["job_id"]))


def cancel(ids: Ids, reason: Reason = None, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Cancel jobs that wait; ask those that run to stop."""
    run_for_each_job(url, ids, json, lambda client, job_id: client.cancel(job_id, reason))


def retry(
    ids: Ids,
    from_step: Annotated[
        str | None, typer.Option(metavar="NAME", help="Repeat this step, and those after it.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Repeat all steps.")] = False,
    reason: Reason = None,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Queue failed or cancelled jobs again, with all their attempts.

    Steps that were completed are not repeated, unless these options say so.
    """
    steps: dict[str, Any] = {"from_step": from_step, "restart": restart}
    run_for_each_job(url, ids, json, lambda client, job_id: client.retry(job_id, reason, **steps))


def delete(ids: Ids, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Hide jobs that have ended; cancel those that have not."""
    run_for_each_job(url, ids, json, lambda client, job_id: client.delete(job_id))


def download(
    job_id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of the job's artifacts.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Instead of NAME.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch a file that a job was given, or made."""
    to = output or Path(Path(name).name)

    async def run(client: Client) -> None:
        size = await client.download(job_id, name, to)
        emit(f"{to}: {size} bytes")

    run_with_client(url, run)
