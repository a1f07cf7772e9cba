"""Commands about the flow of jobs: what there is, pausing it, and why a job is where it is."""

from typing import Annotated, Literal

import typer

from eventjobs.cli import output as terminal
from eventjobs.cli.session import AsJson, Id, Job, Reason, Url, ask, emit, show_all
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL

Kind = Annotated[
    Literal["type", "queue", "schedule"], typer.Argument(help="What NAME is the name of.")
]
Name = Annotated[str, typer.Argument(metavar="NAME")]


def types(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the types of jobs: what waits and runs, what limits it, and what is paused."""

    async def run(client: Client) -> None:
        head = ("type", "queue", "waiting", "running", "limit", "rate", "")
        show_all(await client.types(), head, _type, json=json)

    ask(url, run)


def queues(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the queues: what waits and runs, what limits it, and what is paused."""

    async def run(client: Client) -> None:
        head = ("queue", "waiting", "running", "limit", "")
        show_all(await client.queues(), head, _queue, json=json)

    ask(url, run)


def schedules(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the recurring jobs: when each fires next, its last job, and what is paused."""

    async def run(client: Client) -> None:
        head = ("schedule", "cron", "time zone", "type", "next", "last", "last job", "")
        show_all(await client.schedules(), head, _schedule, json=json)

    ask(url, run)


def breakers(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the circuit breakers: what is not called for now, until when, and who found out."""

    async def run(client: Client) -> None:
        head = ("breaker", "state", "open until", "failures", "threshold", "job")
        show_all(await client.breakers(), head, _breaker, json=json)

    ask(url, run)


def pause(
    kind: Kind, name: Name, reason: Reason = None, json: AsJson = False, url: Url = DEFAULT_URL
) -> None:
    """Start no more jobs of a type, in a queue, or of a schedule.

    What runs goes on, and what a schedule leaves out is not made up for. It outlives a restart.
    """

    async def run(client: Client) -> None:
        told = await client.pause(kind, name, reason)
        emit(told if json else _line(kind, told))

    ask(url, run)


def resume(kind: Kind, name: Name, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Start jobs of a type, in a queue, or of a schedule, again."""

    async def run(client: Client) -> None:
        told = await client.resume(kind, name)
        emit(told if json else _line(kind, told))

    ask(url, run)


def why(job_id: Id, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Tell what a job waits for, who runs it, or what ended it."""

    async def run(client: Client) -> None:
        told = await client.why(job_id)
        if json:
            emit(told)
        else:
            for each in told["reasons"]:
                text = terminal.printable(each["text"]) + terminal.trace(each.get("trace"))
                emit(f"{told['status']}  {each['code']}  {text}")

    ask(url, run)


def _type(told: Job) -> tuple[object, ...]:
    counts = (told["waiting"], told["running"])
    return (told["type"], told["queue"], *counts, told["concurrency"], told["rate"], _paused(told))


def _queue(told: Job) -> tuple[object, ...]:
    counts = (told["waiting"], told["running"])
    return (told["queue"], *counts, told["concurrency"], _paused(told))


def _schedule(told: Job) -> tuple[object, ...]:
    last, error = told["last"], told["last_error"]
    at, status = (_time(last["at"]), last["status"]) if last else (None, None)
    when = (told["cron"], told["timezone"])
    state = _paused(told) or (
        f"failed at {_time(error['at'])}: {error['message']}" if error else ""
    )
    return (told["name"], *when, told["type"], _time(told["next_at"]), at, status, state)


def _breaker(told: Job) -> tuple[object, ...]:
    until = _time(told["open_until"])
    counts = (told["failures"], told["threshold"])
    return (told["name"], told["state"], until, *counts, told["job_id"])


def _line(kind: str, told: Job) -> str:
    state = "is not paused" if told["paused"] is None else f"is {_paused(told)}"
    if kind == "schedule":
        name, now = told["name"], f"next {_time(told['next_at'])}"
    else:
        name, now = told[kind], f"{told['waiting']} waiting, {told['running']} running"
    return terminal.printable(f"{kind} {name} {state}; {now}")


def _paused(told: Job) -> str:
    """Since when and why; nothing when it is not."""
    if (pause := told["paused"]) is None:
        return ""
    why = f": {pause['reason']}" if pause["reason"] else ""
    return f"paused since {_time(pause['since'])}{why}"


def _time(at: str | None) -> str:
    return "-" if at is None else f"{at[:19]}Z"
