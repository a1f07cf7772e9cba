"""The commands `eventjobs webhooks ...`."""

from contextlib import aclosing
from typing import Annotated

import typer

from eventjobs.cli.arguments import AsJson, Url, without_unset
from eventjobs.cli.job_text import print_jobs
from eventjobs.cli.output import emit, print_items
from eventjobs.cli.session import run_with_client
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.client.requests import JSONObject

webhooks = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Send events to other services, as signed messages.",
)

HEAD = ("webhook", "url", "events", "types", "owner", "sent up to")

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
    """Send events to URL from now on. Prints the secret that signs the messages, once."""

    async def run(client: Client) -> None:
        webhook = await client.add_webhook(
            address, events=event or (), types=type or (), owner=owner
        )
        text = f"webhook      {webhook['webhook_id']}\nsecret       {webhook['secret']}"
        emit(webhook if json else text)

    run_with_client(url, run)


@webhooks.command("list")
def list_webhooks(json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List webhooks: which events are sent where, and up to which position."""

    async def run(client: Client) -> None:
        print_items(await client.webhooks(), HEAD, _row, json=json)

    run_with_client(url, run)


@webhooks.command()
def remove(webhook_id: WebhookId, url: Url = DEFAULT_URL) -> None:
    """Send it nothing more."""

    async def run(client: Client) -> None:
        await client.remove_webhook(webhook_id)
        emit(f"{webhook_id}  removed")

    run_with_client(url, run)


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
        jobs: list[JSONObject] = []
        filters = without_unset({"status": status, "limit": min(limit, 1000)})
        async with aclosing(client.deliveries(webhook_id, **filters)) as messages:
            async for job in messages:
                jobs.append(job)
                if len(jobs) == limit:
                    break
        if json:
            for job in jobs:
                emit(job)
        else:
            print_jobs(jobs)

    run_with_client(url, run)


@webhooks.command()
def redeliver(
    webhook_id: WebhookId,
    after: Annotated[int, typer.Option(metavar="POSITION", min=0, help="What came after it.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Messages, at most.")] = 100,
    url: Url = DEFAULT_URL,
) -> None:
    """Send messages again, also of events before the webhook was added. Prints their ids."""

    async def run(client: Client) -> None:
        for job_id in await client.redeliver(webhook_id, after=after, limit=limit):
            emit(job_id)

    run_with_client(url, run)


def _row(webhook: JSONObject) -> tuple[object, ...]:
    return (
        webhook["webhook_id"],
        webhook["url"],
        ",".join(webhook["events"]) or "ends",
        ",".join(webhook["types"]),
        webhook["owner"],
        webhook["told"],
    )
