"""API keys for tests."""

from collections.abc import Sequence
from typing import Any

from eventjobs.auth.principals import Scope
from eventjobs.service import Service

ADMIN = (Scope.ADMIN,)


async def make_key(
    service: Service, scopes: Sequence[str] | None = None, *, owner: str = "ann", **options: Any
) -> str:
    """The text of a new key; without *scopes*, those of a user."""
    _, text = await service.api_keys.create(
        f"key of {owner}", owner=owner, scopes=scopes, actor="test", **options
    )
    return text


def bearer(key: str) -> dict[str, str]:
    """The headers of a request with *key*."""
    return {"Authorization": f"Bearer {key}"}


def id_of(key: str) -> str:
    """The id in the text of a key."""
    return key.split("_")[2]
