"""API keys: created and revoked by events in the log, verified by them, listed from the views."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from eventjobs.auth.api_keys import PREFIX, APIKey, key_id_of, stream_of
from eventjobs.auth.credentials import Credentials
from eventjobs.auth.principals import ANONYMOUS_OWNER, SCOPES, USER_SCOPES, Principal, is_scope
from eventjobs.clock import Clock, sleep
from eventjobs.domain.events import KeyCreated, KeyRevoked
from eventjobs.domain.ids import new_id
from eventjobs.domain.timestamps import microseconds
from eventjobs.domain.validation import (
    STRICT,
    AwareTime,
    Moment,
    Name,
    as_tuple,
    read_reason,
    validate,
)
from eventjobs.errors import Conflict, InvalidCredential, InvalidInput, KeyNotFound, LimitReached
from eventjobs.log import EventLog
from eventjobs.projections import Views
from eventjobs.projections.api_keys import SELECT_KEYS
from eventjobs.storage.last_uses import LastUses

#: Seconds between two writes of the times at which keys were last used.
WRITE_S = 60.0


def _check_scope(text: str) -> str:
    if not is_scope(text):
        message = f"no such scope; there are {', '.join(SCOPES)}"
        raise PydanticCustomError("value_error", message)
    return text


ScopeName = Annotated[Name, AfterValidator(_check_scope)]


class KeyOptions(BaseModel):
    """The fields of a new key that are the same over HTTP and in Python."""

    model_config = STRICT

    name: Name = Field(description="what the key is for; need not be unique")
    owner: Name | None = Field(
        None, description="of the jobs that are submitted with it; null: its name"
    )
    scopes: Annotated[tuple[ScopeName, ...], BeforeValidator(as_tuple)] | None = Field(
        None, min_length=1, max_length=100, description="what it permits; null: those of a user"
    )


class NewKey(KeyOptions):
    """What a new API key is for, and what it permits."""

    expires_at: Moment | None = Field(None, description="null: it does not expire")


class _NewKeyFromPython(KeyOptions):
    expires_at: AwareTime | None = None


class KeyInfo(NamedTuple):
    """A key, without its secret."""

    key_id: str
    created_us: int
    actor: str
    name: str
    owner: str
    scopes: tuple[str, ...]
    expires_us: int | None
    last_used_us: int | None = None


async def _read(log: EventLog, key_id: str) -> tuple[KeyCreated, bool] | None:
    """The key by its events, and whether it is active; None when there is no such key.

    The log is up to date; the views may lag, or be rebuilt.
    """
    stream_id = stream_of(key_id)
    events = [] if stream_id is None else await log.read_job(stream_id)
    if not events or not isinstance(created := events[0].event, KeyCreated):
        return None  # also for the id of a job
    return created, len(events) == 1  # a second event that cannot be read may be a revocation


class APIKeyVerifier:
    """Verifies API keys by their events in *log*."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def recognizes(self, credential: str) -> bool:
        return credential.startswith(PREFIX)

    async def verify(self, credential: str) -> Principal:
        """Raises InvalidCredential, LogError. A wrong checksum is refused without a read."""
        key = APIKey.parse(credential)
        if key is None:
            raise InvalidCredential("the API key is incomplete or mistyped")
        stored = await _read(self._log, key.key_id)
        if not key.matches(stored and stored[0].digest) or stored is None:
            raise InvalidCredential
        created, is_active = stored
        if not is_active:
            raise InvalidCredential("the API key is revoked")
        name = _principal_name(key.key_id)
        return Principal(
            name, created.owner, frozenset(created.scopes), (name,), created.expires_us
        )

    async def is_active(self, credential: str) -> bool:
        """Whether *credential*, one of the `credentials` of a principal, is no revoked key."""
        prefix = _principal_name("")
        if not credential.startswith(prefix):
            return True
        stored = await _read(self._log, credential.removeprefix(prefix))
        return stored is not None and stored[1]


class APIKeys:
    """Creates, revokes and lists API keys, at most *keys_max* at a time."""

    def __init__(
        self,
        log: EventLog,
        views: Views,
        clock: Clock,
        credentials: Credentials,
        uses: LastUses,
        keys_max: int,
    ) -> None:
        self._log = log
        self._views = views
        self._clock = clock
        self._credentials = credentials
        self._keys_max = keys_max
        self._creating = asyncio.Lock()
        self._uses = uses

    async def create(
        self,
        name: str,
        *,
        owner: str | None = None,
        scopes: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        actor: str,
    ) -> tuple[KeyInfo, str]:
        """A new key and its text, which cannot be read again. Raises InvalidInput, LimitReached.

        By default the *owner* of its jobs is *name*, its scopes are those of a user, and it does
        not expire.
        """
        given = {"name": name, "owner": owner, "scopes": scopes, "expires_at": expires_at}
        valid = validate(_NewKeyFromPython, given, "the key does not fit")
        owner = valid.owner or valid.name
        if owner == ANONYMOUS_OWNER:
            message = "the owner of jobs that were submitted without a credential; name another"
            raise InvalidInput(message, [{"field": "owner", "message": message}])
        now_us = self._clock.now_us()
        expires_us = None if valid.expires_at is None else microseconds(valid.expires_at)
        if expires_us is not None and expires_us <= now_us:
            message = "the key would have expired already"
            raise InvalidInput(message, [{"field": "expires_at", "message": message}])
        stream_id = new_id(now_us)
        key = APIKey.create(stream_id)
        names = tuple(sorted(set(valid.scopes or USER_SCOPES)))
        event = KeyCreated(valid.name, owner, key.digest, names, expires_us)
        async with self._creating:  # else concurrent calls would exceed the limit
            if len(await self._rows()) >= self._keys_max:
                raise LimitReached(f"there are {self._keys_max} API keys, and may be no more")
            recorded = await self._log.append(stream_id, 0, event, actor=actor)
        info = KeyInfo(key.key_id, recorded.at_us, actor, valid.name, owner, names, expires_us)
        return info, key.text

    async def revoke(self, key_id: str, reason: str | None = None, *, actor: str) -> None:
        """End the key and its streams. Raises KeyNotFound. Idempotent."""
        reason = read_reason(reason, "reason")
        stream_id = stream_of(key_id) if isinstance(key_id, str) else None
        if stream_id is None or (stored := await _read(self._log, key_id)) is None:
            raise KeyNotFound
        try:
            if stored[1]:
                with suppress(Conflict):  # it is revoked already
                    await self._log.append(stream_id, 1, KeyRevoked(reason), actor=actor)
        finally:  # an append that is cancelled, or whose outcome is unknown, may have happened
            self._credentials.revoke(_principal_name(key_id))
        self._take_uses()
        self._uses.drop(key_id)

    async def all(self) -> list[KeyInfo]:
        """The keys that are not revoked, the oldest first."""
        self._take_uses()
        uses = await self._uses.all()
        keys = []
        for stream_id, created_us, actor, name, owner, scopes, expires_us in await self._rows():
            key_id = key_id_of(stream_id)
            fields = (key_id, created_us, actor, name, owner, tuple(scopes), expires_us)
            keys.append(KeyInfo(*fields, uses.get(key_id)))
        return keys

    async def _rows(self) -> list[Any]:
        await self._views.wait_for_position(self._log.head)
        rows: list[Any] = await self._views.query(SELECT_KEYS)
        return rows

    # --- last uses

    async def run(self) -> None:
        """Write the times of last uses to their file, until cancelled."""
        while True:
            await sleep(self._clock, WRITE_S)
            await self.write_uses()

    async def write_uses(self) -> None:
        """Write the times of last uses since the last write."""
        self._take_uses()
        await self._uses.write()

    def _take_uses(self) -> None:
        prefix = _principal_name("")
        uses = self._credentials.take_uses().items()
        self._uses.add(
            {name.removeprefix(prefix): at for name, at in uses if name.startswith(prefix)}
        )


def _principal_name(key_id: str) -> str:
    return f"key:{key_id}"
