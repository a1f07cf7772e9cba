"""Commands about jobs: submit, watch, list, show, logs, cancel, retry, delete, download."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from eventjobs.cli import arguments as typed
from eventjobs.cli import output, progress
from eventjobs.cli.arguments import LATE, REFUSED, fail
from eventjobs.cli.session import AsJson, Id, Job, Reason, Url, ask, each_job, emit, only_set
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.clock import SystemClock, timeout

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs, by their ids.")]
MaxWait = Annotated[
    float | None,
    typer.Option(
        envvar=["EVENTJOBS_MAX_WAIT_S", "CLIENT_MAX_WAIT_SECONDS"],
        min=0,
        metavar="SECONDS",
        help="Wait no longer for a job to end; it goes on.",
    ),
]
ConcurrencyKey = Annotated[
    str | None, typer.Option(help="Of jobs with the same, one runs at once.")
]
Statuses = Annotated[list[str] | None, typer.Option(help="Any of these; repeatable.")]
Types = Annotated[list[str] | None, typer.Option(help="Any of these; repeatable.")]
Tag = Annotated[str | None, typer.Option(help="Jobs that carry it.")]
Queue = Annotated[str | None, typer.Option(help="Jobs in it.")]
Content = Annotated[
    str | None, typer.Argument(metavar="[PAYLOAD]", help="JSON, @FILE, or - for stdin.")
]
Attached = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]PATH", help="A file; repeatable.")
]
After = Annotated[list[str] | None, typer.Option(metavar="ID", help="Not before; repeatable.")]
IfNot = Annotated[Literal["cancel", "run"] | None, typer.Option(help="If one fails. [cancel]")]


def submit(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Which handler does it.")],
    payload: Content = None,
    artifact: Attached = None,
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
    after_failure: IfNot = None,
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
        "run_at": typed.time(run_at) or typed.later(delay),
        "max_attempts": max_attempts,
        "timeout_s": timeout,
        "ttl_s": typed.seconds(ttl),
        "after": after,
        "after_failure": after_failure,
    }
    content = typed.payload(payload)
    files = dict(map(typed.named, artifact or []))

    async def run(client: Client) -> None:
        job = await client.submit(
            type, content, idempotency_key=key, artifacts=files, **only_set(fields)
        )
        if wait or watch:
            async with _no_longer_than(max_wait):
                await _finish(client, job, json=json, watch=watch)
        emit(job if json else job["job_id"])

    ask(url, run)


async def _finish(client: Client, job: Job, *, json: bool, watch: bool) -> NoReturn:
    """Wait until *job* has ended; the exit code tells how."""
    if not json:
        emit(job["job_id"])
    if watch:
        await _watch(client, [job["job_id"]], {}, json=json)
    client.on_connection_lost = progress.complain
    job = await client.wait(job["job_id"])
    if not (watch and json):
        emit(job if json else output.details(job))
    raise typer.Exit(0 if job["status"] == "completed" else REFUSED)


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
    given = only_set({"status": status, "type": type, "tag": tag, "queue": queue})
    if ids and given:
        fail("usage", "give ids or filters, not both")

    async def run(client: Client) -> None:
        async with _no_longer_than(None if forever else max_wait):
            counted = await _watch(client, ids or [], given, json=json, forever=forever)
        if not json and len(ids or []) != 1:
            told = [f"{number} {status}" for status, number in sorted(counted.items())]
            emit(", ".join(told) or "no job matches")
        raise typer.Exit(0 if set(counted) <= {"completed"} else REFUSED)

    ask(url, run)


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
    """List jobs: a table in a terminal, tab-separated values elsewhere."""
    filters: dict[str, Any] = {"status": status, "type": type, "tag": tag, "queue": queue}
    given = only_set(
        filters | {"order": order, "since": typed.time(since), "until": typed.time(until)}
    )

    async def run(client: Client) -> None:
        jobs: list[Job] = []
        async with aclosing(client.list(limit=min(limit, 1000), **given)) as found:
            async for job in found:
                if json:
                    emit(job)
                jobs.append(job)
                if len(jobs) == limit and not everything:
                    break
        if not json:
            output.table(jobs)

    ask(url, run)


def cancel(ids: Ids, reason: Reason = None, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Cancel jobs that wait; ask those that run to stop."""
    each_job(url, ids, json, lambda client, job_id: client.cancel(job_id, reason))


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
    how: dict[str, Any] = {"from_step": from_step, "restart": restart}
    each_job(url, ids, json, lambda client, job_id: client.retry(job_id, reason, **how))


def delete(ids: Ids, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Hide jobs that have ended; cancel those that have not."""
    each_job(url, ids, json, lambda client, job_id: client.delete(job_id))


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

    ask(url, run)


# --- waiting


async def _watch(
    client: Client, ids: list[str], filters: dict[str, Any], *, json: bool, forever: bool = False
) -> Counter[str]:
    shown = progress.display(json=json)
    client.on_connection_lost = shown.lost
    try:
        return await progress.follow(client, shown, ids, filters, forever=forever)
    finally:
        shown.close()


@asynccontextmanager
async def _no_longer_than(max_wait_s: float | None) -> AsyncIterator[None]:
    try:
        async with timeout(SystemClock(), max_wait_s):
            yield
    except TimeoutError:
        fail("max_wait", f"not ended within {max_wait_s:g} s; it goes on", LATE)


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
                emit(event)
        elif history:
            told = await client.history(job_id)
            emit(told if json else output.history(told))
        elif receipt:
            told = await client.receipt(job_id)
            emit(told if json else "\n".join(map(output.printable_line, told["text"])))
        else:
            job = await client.get(job_id)
            emit(job if json else output.details(job) + await _trace(client, job))

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
                emit(line if json else output.log_line(line))
        if not json and (trace := await _trace(client, await client.get(job_id))):
            emit(f"the newest attempt that failed:{trace}")

    ask(url, run)


async def _trace(client: Client, job: Job) -> str:
    """Where the newest attempt failed, while the job has an error."""
    if job["error"] is None:
        return ""
    return output.last_trace(await client.history(job["job_id"]))
