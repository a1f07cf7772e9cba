"""The commands about webhooks: `eventjobs webhooks add` and its kin."""

from contextlib import aclosing
from typing import Annotated

import typer

from eventjobs.cli import output as terminal
from eventjobs.cli.session import AsJson, Job, Url, ask, emit, only_set, show_all
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL

webhooks = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Have others told of events, by signed messages.",
)

HEAD = ("webhook", "url", "events", "types", "owner", "told")

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="A webhook, by its id.")]


@webhooks.command()
def add(
    address: Annotated[str, typer.Argument(metavar="URL", help="Where messages are POSTed to.")],
    event: Annotated[
        list[str] | None, typer.Option(help="As in the log; repeatable. [those that end a job]")
    ] = None,
    type: Annotated[list[str] | None, typer.Option(help="Of jobs; repeatable. [all]")] = None,
    owner: Annotated[str | None, typer.Option(help="Of jobs. [all]")] = None,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Tell URL of events from now on. Prints the secret that messages are signed with, once."""

    async def run(client: Client) -> None:
        told = await client.add_webhook(address, events=event or (), types=type or (), owner=owner)
        emit(told if json else f"webhook      {told['webhook_id']}\nsecret       {told['secret']}")

    ask(url, run)


@webhooks.command("list")
def list_webhooks(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List webhooks: who is told of what, and up to which position."""

    async def run(client: Client) -> None:
        show_all(await client.webhooks(), HEAD, _row, json=json)

    ask(url, run)


@webhooks.command()
def remove(webhook_id: WebhookId, url: Url = DEFAULT_URL) -> None:
    """Tell it nothing more."""

    async def run(client: Client) -> None:
        await client.remove_webhook(webhook_id)
        emit(f"{webhook_id}  removed")

    ask(url, run)


@webhooks.command()
def deliveries(
    webhook_id: WebhookId,
    status: Annotated[list[str] | None, typer.Option(help="Any of these; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest, at most.")] = 50,
    json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the messages to it. Each is a job: show, cancel and retry do with it what they do."""

    async def run(client: Client) -> None:
        jobs: list[Job] = []
        given = only_set({"status": status, "limit": min(limit, 1000)})
        async with aclosing(client.deliveries(webhook_id, **given)) as found:
            async for job in found:
                jobs.append(job)
                if len(jobs) == limit:
                    break
        if json:
            for job in jobs:
                emit(job)
        else:
            terminal.table(jobs)

    ask(url, run)


@webhooks.command()
def redeliver(
    webhook_id: WebhookId,
    after: Annotated[int, typer.Option(metavar="POSITION", min=0, help="What came after it.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Messages, at most.")] = 100,
    url: Url = DEFAULT_URL,
) -> None:
    """Send messages again, also those of before there was the webhook. Prints their ids."""

    async def run(client: Client) -> None:
        for job_id in await client.redeliver(webhook_id, after=after, limit=limit):
            emit(job_id)

    ask(url, run)


def _row(webhook: Job) -> tuple[object, ...]:
    return (
        webhook["webhook_id"],
        webhook["url"],
        ",".join(webhook["events"]) or "ends",
        ",".join(webhook["types"]),
        webhook["owner"],
        webhook["told"],
    )
