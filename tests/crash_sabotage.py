"""A service that breaks a promise, to see that the campaign notices."""

from uuid import uuid4

from eventjobs.handlers import Handler
from eventjobs.http import api
from tests.crash_handlers import HANDLERS


def __getattr__(name: str) -> list[Handler]:
    """The same handlers, in a process whose idempotency keys mean nothing from now on."""
    if name != "FORGETS_KEYS":
        raise AttributeError(name)
    setattr(api, "id_of_key", lambda key: str(uuid4()))  # noqa: B010 mypy knows its type
    return HANDLERS
