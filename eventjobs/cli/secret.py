"""The commands `eventjobs secret` and `eventjobs new-key`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from eventjobs.cli.arguments import Data
from eventjobs.cli.errors import EXIT_REFUSED, exit_on_error, fail


def secret(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Of jobs.")], data: Data = None
) -> None:
    """Print the secret that signs what the external service of a type of jobs is sent.

    It follows from the key in the data directory, which is made when the service first starts.
    """
    from eventjobs.auth.master_key import MasterKey
    from eventjobs.storage.data_directory import KEY

    with exit_on_error():
        key = _directory(data) / KEY
        if not key.is_file():
            fail("no_key", f"{key} is not there; the service makes it when it starts", EXIT_REFUSED)
        print(MasterKey.open(key).signing_secret("dispatch", type))


def new_key(data: Data = None) -> None:
    """Make a new secret key for a log whose key is lost; the service must be stopped.

    Tokens of running attempts at external services, and the secrets of services and webhooks, are
    others from then on: hand them out again.
    """
    from eventjobs.data_files import renew_key

    with exit_on_error():
        directory = _directory(data)
        if not directory.is_dir():
            fail("no_log", f"there is no directory {directory}", EXIT_REFUSED)
        print(asyncio.run(renew_key(directory)))


def _directory(data: Path | None) -> Path:
    """The data directory, by the option or the setting."""
    from eventjobs.cli.setting_values import read_settings
    from eventjobs.settings import Settings

    return read_settings(Settings, {} if data is None else {"data": data}).data
