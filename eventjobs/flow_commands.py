"""Commands about the flow of jobs: pausing types and queues, and why a job is where it is."""

from typing import Annotated, Literal

import typer

from eventjobs import watch as terminal
from eventjobs.asking import AsJson, Id, Job, Reason, Url, ask, say
from eventjobs.client import DEFAULT_URL, Client

Kind = Annotated[Literal["type", "queue"], typer.Argument(help="What NAME is the name of.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]


def pause(
    kind: Kind, name: Name, reason: Reason = None, json: AsJson = False, url: Url = DEFAULT_URL
) -> None:
    """Start no more jobs of a type, or in a queue. What runs goes on; it outlives a restart."""

    async def run(client: Client) -> None:
        told = await client.pause(kind, name, reason)
        say(told if json else _line(kind, told))

    ask(url, run)


def resume(kind: Kind, name: Name, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Start jobs of a type, or in a queue, again."""

    async def run(client: Client) -> None:
        told = await client.resume(kind, name)
        say(told if json else _line(kind, told))

    ask(url, run)


def why(job_id: Id, json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Tell what a job waits for, who runs it, or what ended it."""

    async def run(client: Client) -> None:
        told = await client.why(job_id)
        if json:
            say(told)
        else:
            for each in told["reasons"]:
                say(f"{told['status']}  {each['code']}  {terminal.printable(each['text'])}")

    ask(url, run)


def _line(kind: str, told: Job) -> str:
    pause = told["paused"]
    state = "is not paused"
    if pause is not None:
        why = f": {pause['reason']}" if pause["reason"] else ""
        state = f"is paused since {pause['since'][:19]}Z{why}"
    counts = f"{told['waiting']} waiting, {told['running']} running"
    return terminal.printable(f"{kind} {told[kind]} {state}; {counts}")
