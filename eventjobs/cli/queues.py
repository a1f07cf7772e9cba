"""Commands about types, queues, schedules and breakers, pausing, and what a job waits for."""

from typing import Annotated, Literal

import typer

from eventjobs.cli.arguments import AsJson, Id, Reason, Url
from eventjobs.cli.job_text import trace_text
from eventjobs.cli.output import emit, print_items, printable
from eventjobs.cli.session import run_with_client
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.client.requests import JSONObject

Kind = Annotated[
    Literal["type", "queue", "schedule"], typer.Argument(help="What NAME is the name of.")
]
Name = Annotated[str, typer.Argument(metavar="NAME")]


def types(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the types of jobs: what waits and runs, what limits it, and what is paused."""

    async def run(client: Client) -> None:
        head = ("type", "queue", "waiting", "running", "limit", "rate", "")
        print_items(await client.types(), head, _type_row, json=json)

    run_with_client(url, run)


def queues(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the queues: what waits and runs, what limits it, and what is paused."""

    async def run(client: Client) -> None:
        head = ("queue", "waiting", "running", "limit", "")
        print_items(await client.queues(), head, _queue_row, json=json)

    run_with_client(url, run)


def schedules(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the recurring jobs: when each fires next, its last job, and what is paused."""

    async def run(client: Client) -> None:
        head = ("schedule", "cron", "time zone", "type", "next", "last", "last job", "")
        print_items(await client.schedules(), head, _schedule_row, json=json)

    run_with_client(url, run)


def breakers(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the circuit breakers: what is not called for now, until when, and after which job."""

    async def run(client: Client) -> None:
        head = ("breaker", "state", "open until", "failures", "threshold", "job")
        print_items(await client.breakers(), head, _breaker_row, json=json)

    run_with_client(url, run)


def pause(
    kind: Kind, name: Name, reason: Reason = None, json: AsJson = False, url: Url = DEFAULT_URL
) -> None:
    """Start no more jobs of a type, in a queue, or of a schedule.

    What runs goes on, and firings of a paused schedule are left out. It outlives a restart.
    """

    async def run(client: Client) -> None:
        state = await client.pause(kind, name, reason)
        emit(state if json else _state_text(kind, state))

    run_with_client(url, run)


def resume(kind: Kind, name: Name, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Start jobs of a type, in a queue, or of a schedule, again."""

    async def run(client: Client) -> None:
        state = await client.resume(kind, name)
        emit(state if json else _state_text(kind, state))

    run_with_client(url, run)


def why(job_id: Id, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show what a job waits for, what runs it, or what ended it."""

    async def run(client: Client) -> None:
        explanation = await client.why(job_id)
        if json:
            emit(explanation)
            return
        for each in explanation["reasons"]:
            text = printable(each["text"]) + trace_text(each.get("trace"))
            emit(f"{explanation['status']}  {each['code']}  {text}")

    run_with_client(url, run)


def _type_row(state: JSONObject) -> tuple[object, ...]:
    counts = (state["waiting"], state["running"])
    limits = (state["concurrency"], state["rate"])
    return (state["type"], state["queue"], *counts, *limits, _pause_text(state))


def _queue_row(state: JSONObject) -> tuple[object, ...]:
    counts = (state["waiting"], state["running"])
    return (state["queue"], *counts, state["concurrency"], _pause_text(state))


def _schedule_row(state: JSONObject) -> tuple[object, ...]:
    last, error = state["last"], state["last_error"]
    at, status = (_time(last["at"]), last["status"]) if last else (None, None)
    when = (state["cron"], state["timezone"])
    problem = _pause_text(state) or (
        f"failed at {_time(error['at'])}: {error['message']}" if error else ""
    )
    return (state["name"], *when, state["type"], _time(state["next_at"]), at, status, problem)


def _breaker_row(state: JSONObject) -> tuple[object, ...]:
    until = _time(state["open_until"])
    counts = (state["failures"], state["threshold"])
    return (state["name"], state["state"], until, *counts, state["job_id"])


def _state_text(kind: str, state: JSONObject) -> str:
    paused = "is not paused" if state["paused"] is None else f"is {_pause_text(state)}"
    if kind == "schedule":
        name, now = state["name"], f"next {_time(state['next_at'])}"
    else:
        name, now = state[kind], f"{state['waiting']} waiting, {state['running']} running"
    return printable(f"{kind} {name} {paused}; {now}")


def _pause_text(state: JSONObject) -> str:
    """The time and the reason of the pause; empty when not paused."""
    if (pause := state["paused"]) is None:
        return ""
    reason = f": {pause['reason']}" if pause["reason"] else ""
    return f"paused since {_time(pause['since'])}{reason}"


def _time(at: str | None) -> str:
    return "-" if at is None else f"{at[:19]}Z"
