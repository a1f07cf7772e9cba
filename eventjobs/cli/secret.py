"""The commands about secrets: that of an external service, and the key that all are made from."""

import asyncio
from typing import Annotated

import typer

from eventjobs.cli.arguments import REFUSED, WRONG, Data, fail
from eventjobs.errors import EventjobsError, InvalidInput


def secret(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Of jobs.")], data: Data = None
) -> None:
    """Print the secret that signs what the external service of a type of jobs is sent.

    It follows from the key in the data directory, which is made when the service first starts.
    """
    from eventjobs.auth.master_key import MasterKey
    from eventjobs.cli import setting_values as knobs
    from eventjobs.settings import Settings

    try:
        settings = knobs.read(Settings, {} if data is None else {"data": data})
        key = settings.data / "secret.key"
        if not key.is_file():
            fail("no_key", f"{key} is not there; the service makes it when it starts", REFUSED)
        print(MasterKey.open(key).signing_secret("dispatch", type))
    except InvalidInput as error:
        fail(error.code, error.message, WRONG)
    except EventjobsError as error:
        fail(error.code, error.message, REFUSED)


def new_key(data: Data = None) -> None:
    """Make a new secret key for a log whose key is lost; the service must be stopped.

    Tokens of running attempts at external services, and the secrets of services and webhooks, are
    others from then on: hand them out again.
    """
    from eventjobs.cli import setting_values as knobs
    from eventjobs.data_directory import renew_key
    from eventjobs.settings import Settings

    try:
        settings = knobs.read(Settings, {} if data is None else {"data": data})
        if not settings.data.is_dir():
            fail("no_log", f"there is no directory {settings.data}", REFUSED)
        print(asyncio.run(renew_key(settings.data)))
    except InvalidInput as error:
        fail(error.code, error.message, WRONG)
    except EventjobsError as error:
        fail(error.code, error.message, REFUSED)
