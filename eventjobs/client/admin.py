"""What a client asks about a service as a whole, and how it steers it."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from eventjobs.client.connection import Connection

Fields = dict[str, Any]


class AdminAPI:
    """The part of Client that is about no single job."""

    _http: Connection

    async def pause(self, kind: str, name: str, reason: str | None = None) -> Fields:
        """Start no more jobs of the "type", in the "queue" or of the "schedule" of this name; how
        it is now.
        """
        return await self._http.call(
            "POST", _path(f"{kind}s", name, "pause"), json={"reason": reason}
        )

    async def resume(self, kind: str, name: str) -> Fields:
        """Start them again; how it is now."""
        return await self._http.call("POST", _path(f"{kind}s", name, "resume"))

    async def types(self) -> list[Fields]:
        """Every type of job: what waits and runs, what limits it, and whether it is paused."""
        return await self._listed("types")

    async def queues(self) -> list[Fields]:
        """The same of every queue."""
        return await self._listed("queues")

    async def schedules(self) -> list[Fields]:
        """The recurring jobs: when each fires next, its last job, and whether it is paused."""
        return await self._listed("schedules")

    async def breakers(self) -> list[Fields]:
        """What is not called for now because it failed, until when, and which job found out."""
        return await self._listed("breakers")

    async def webhooks(self) -> list[Fields]:
        """Who is told of what, the oldest first."""
        return await self._listed("webhooks")

    async def webhook(self, webhook_id: str) -> Fields:
        return await self._http.call("GET", _path("webhooks", webhook_id))

    async def add_webhook(
        self,
        url: str,
        *,
        events: Iterable[str] = (),
        types: Iterable[str] = (),
        owner: str | None = None,
    ) -> Fields:
        """Have *url* told of these events, of jobs of these types; without any, of every end.

        The answer's `secret`, with which messages are signed, is told this once.
        """
        wanted = {"url": url, "events": [*events], "types": [*types], "owner": owner}
        # Not sent again: it may have arrived, and would be told of everything twice.
        return await self._http.call("POST", _path("webhooks"), json=wanted, again=False)

    async def remove_webhook(self, webhook_id: str) -> None:
        """Tell it nothing more. Harmless to repeat."""
        await self._http.call("DELETE", _path("webhooks", webhook_id))

    async def redeliver(self, webhook_id: str, *, after: int, limit: int = 100) -> list[str]:
        """Send it again what it wants of the events after this position; the deliveries' ids."""
        path = _path("webhooks", webhook_id, "redeliver")
        asked = {"after": after, "limit": limit}
        told = await self._http.call("POST", path, json=asked, again=False)
        deliveries: list[str] = told["deliveries"]
        return deliveries

    async def _listed(self, what: str) -> list[Fields]:
        found: list[Fields] = []
        params: dict[str, str] = {}
        while True:
            page = await self._http.call("GET", _path(what), params=params)
            found += page[what]
            if page["next"] is None:
                return found
            params = {"cursor": page["next"]}


def _path(*parts: str) -> str:
    return "/".join(["/v1", *(quote(each, safe="") for each in parts)])
