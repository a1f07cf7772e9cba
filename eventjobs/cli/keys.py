"""The commands `eventjobs keys ...`."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eventjobs.cli.arguments import AsJson, Url, parse_time, time_after
from eventjobs.cli.errors import EXIT_REFUSED, exit_on_error, fail
from eventjobs.cli.output import emit, print_items
from eventjobs.cli.session import run_with_client
from eventjobs.client import Client
from eventjobs.client.client import DEFAULT_URL
from eventjobs.client.requests import JSONObject

if TYPE_CHECKING:
    from eventjobs.commands.api_keys import APIKeys

keys = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="API keys: create, list, revoke. A running service wants the key of an admin for it, in"
    " EVENTJOBS_TOKEN. The first one is created with --data, while the service is stopped, as the"
    " user that the service runs as.",
)

HEAD = ("key", "name", "owner", "scopes", "expires", "last used")
#: What to do with a new key.
ADVICE = "Store it now, it is not shown again. Commands and workers take it from EVENTJOBS_TOKEN."
#: The actor of events of commands with --data.
ACTOR = "cli"

DataOfStopped = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Directory of a service that is stopped; instead of --url."
    ),
]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    owner: Annotated[str | None, typer.Option(help="Of the jobs submitted with it. [NAME]")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="jobs:submit, jobs:read, jobs:control, worker:TYPE, worker:*, audit:export, admin;"
            " repeatable. [the first three]"
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="A delay like 90d, or a time. [never]")
    ] = None,
    json: AsJson = False,
    data: DataOfStopped = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a key and print it. It is not shown again."""
    expires_at = _parse_expiry(expires)

    def show(key: JSONObject) -> None:
        emit(key if json else str(key["key"]))
        if not json:
            scopes = ", ".join(key["scopes"])
            typer.echo(f"{key['key_id']}: owner {key['owner']}; {scopes}", err=True)
            typer.echo(ADVICE, err=True)

    async def over_http(client: Client) -> None:
        show(await client.create_key(name, owner=owner, scopes=scope, expires_at=expires_at))

    async def in_directory(stored: "APIKeys") -> None:
        from eventjobs.http.endpoints.keys import render_key

        info, text = await stored.create(
            name, owner=owner, scopes=scope, expires_at=expires_at, actor=ACTOR
        )
        show(render_key(info) | {"key": text})

    _run(url, data, over_http, in_directory, new=True)


@keys.command("list")
def list_keys(json: AsJson = False, data: DataOfStopped = None, url: Url = DEFAULT_URL) -> None:
    """List the keys that are not revoked."""

    async def over_http(client: Client) -> None:
        print_items(await client.keys(), HEAD, _row, json=json)

    async def in_directory(stored: "APIKeys") -> None:
        from eventjobs.http.endpoints.keys import render_key

        print_items(map(render_key, await stored.all()), HEAD, _row, json=json)

    _run(url, data, over_http, in_directory)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="A key, by its id.")],
    data: DataOfStopped = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Refuse a key from now on, and end its streams."""

    async def over_http(client: Client) -> None:
        await client.revoke_key(key_id)
        emit(f"{key_id}  revoked")

    async def in_directory(stored: "APIKeys") -> None:
        await stored.revoke(key_id, actor=ACTOR)
        emit(f"{key_id}  revoked")

    _run(url, data, over_http, in_directory)


def _run(
    url: str,
    data: Path | None,
    over_http: Callable[[Client], Awaitable[None]],
    in_directory: Callable[["APIKeys"], Awaitable[None]],
    *,
    new: bool = False,
) -> None:
    """Run the command with a client of the service, or with the keys in the directory *data*, which
    may be a *new* one.
    """
    if data is None:
        run_with_client(url, over_http)
        return
    from eventjobs.cli.setting_values import read_settings
    from eventjobs.data_files import open_api_keys
    from eventjobs.errors import DirectoryLocked
    from eventjobs.observability.logging import configure
    from eventjobs.settings import Settings
    from eventjobs.storage.data_directory import LOG

    async def run(settings: Settings) -> None:
        async with open_api_keys(settings) as stored:
            await in_directory(stored)

    configure("warning")
    with exit_on_error():
        if not new and not (data / LOG).is_file():
            fail("log_missing", f"there is no log in {data}", EXIT_REFUSED)
        try:
            asyncio.run(run(read_settings(Settings, {"data": data})))
        except DirectoryLocked as error:
            hint = "or leave out --data, to do it over HTTP with the key of an admin"
            fail(error.code, f"{error.message}; {hint}", EXIT_REFUSED)


def _parse_expiry(text: str | None) -> datetime | None:
    """A time, or the time after a delay from now."""
    try:
        return parse_time(text) if text and "-" in text else time_after(text)
    except (OverflowError, ValueError):
        fail("usage", f"{text!r} is too far away")


def _row(key: JSONObject) -> tuple[object, ...]:
    times = (_time(key["expires_at"]), _time(key["last_used_at"]))
    return (key["key_id"], key["name"], key["owner"], ",".join(key["scopes"]), *times)


def _time(at: str | None) -> str | None:
    return None if at is None else f"{at[:19]}Z"
