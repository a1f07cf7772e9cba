"""The part of the client that is about the service as a whole."""

from collections.abc import Iterable
from datetime import datetime

from eventjobs.client.connection import Connection
from eventjobs.client.requests import JSONObject, api_path, format_time


class AdminAPI:
    """Types, queues, schedules, webhooks, API keys. Methods raise ApiError, Unreachable."""

    _http: Connection

    async def pause(self, kind: str, name: str, reason: str | None = None) -> JSONObject:
        """Start no more jobs of the "type", in the "queue" or of the "schedule" of this name.

        Returns its state, as do *types*, *queues* and *schedules*.
        """
        return await self._http.call(
            "POST", api_path(f"{kind}s", name, "pause"), json={"reason": reason}
        )

    async def resume(self, kind: str, name: str) -> JSONObject:
        """Undo *pause*. Returns the state."""
        return await self._http.call("POST", api_path(f"{kind}s", name, "resume"))

    async def types(self) -> list[JSONObject]:
        """Every type of job: how many wait and run, its limits, and whether it is paused."""
        return await self._list_all("types")

    async def queues(self) -> list[JSONObject]:
        """Every queue: how many jobs wait and run, its limits, and whether it is paused."""
        return await self._list_all("queues")

    async def schedules(self) -> list[JSONObject]:
        """The recurring jobs: when each fires next, its last job, and whether it is paused."""
        return await self._list_all("schedules")

    async def breakers(self) -> list[JSONObject]:
        """The circuit breakers: until when calls are rejected, and the job whose call failed."""
        return await self._list_all("breakers")

    async def webhooks(self) -> list[JSONObject]:
        """Every webhook, the oldest first."""
        return await self._list_all("webhooks")

    async def webhook(self, webhook_id: str) -> JSONObject:
        return await self._http.call("GET", api_path("webhooks", webhook_id))

    async def add_webhook(
        self,
        url: str,
        *,
        events: Iterable[str] = (),
        types: Iterable[str] = (),
        owner: str | None = None,
    ) -> JSONObject:
        """Send these events of jobs of these types to *url*; without *events*, every end of a job.

        The response's `secret` signs the messages. No other response has it.
        """
        body = {"url": url, "events": [*events], "types": [*types], "owner": owner}
        # Not retried: if the first request arrived, each event would be sent twice.
        return await self._http.call("POST", api_path("webhooks"), json=body, retry=False)

    async def remove_webhook(self, webhook_id: str) -> None:
        """Send it nothing more. Harmless to repeat."""
        await self._http.call("DELETE", api_path("webhooks", webhook_id))

    async def redeliver(self, webhook_id: str, *, after: int, limit: int = 100) -> list[str]:
        """Send a webhook its events after this position again. Returns the deliveries' ids."""
        path = api_path("webhooks", webhook_id, "redeliver")
        body = {"after": after, "limit": limit}
        response = await self._http.call("POST", path, json=body, retry=False)
        deliveries: list[str] = response["deliveries"]
        return deliveries

    async def keys(self) -> list[JSONObject]:
        """Every API key that is not revoked, the oldest first."""
        return await self._list_all("keys")

    async def create_key(
        self,
        name: str,
        *,
        owner: str | None = None,
        scopes: Iterable[str] | None = None,
        expires_at: datetime | None = None,
    ) -> JSONObject:
        """A new API key; its text is `key`. No other response has it."""
        body = {
            "name": name,
            "owner": owner,
            "scopes": None if scopes is None else [*scopes],
            "expires_at": None if expires_at is None else format_time(expires_at, "expires_at"),
        }
        # Not retried: if the first request arrived, there would be a key whose text is lost.
        return await self._http.call("POST", api_path("keys"), json=body, retry=False)

    async def revoke_key(self, key_id: str) -> None:
        """Refuse this key from now on. Harmless to repeat."""
        await self._http.call("DELETE", api_path("keys", key_id))

    async def _list_all(self, collection: str) -> list[JSONObject]:
        items: list[JSONObject] = []
        params: dict[str, str] = {}
        while True:
            page = await self._http.call("GET", api_path(collection), params=params)
            items += page[collection]
            if page["next"] is None:
                return items
            params = {"cursor": page["next"]}
