"""The part of the client that follows jobs: events, log lines and snapshots, live."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import orjson

from eventjobs.client.connection import Connection
from eventjobs.client.errors import LogChanged
from eventjobs.client.requests import JSONObject, job_path, query_params
from eventjobs.domain.job import FINISHED


class StreamsAPI:
    """Streams over server-sent events. A stream that breaks is resumed from its last event.

    Every method raises ApiError, and Unreachable when there was no connection from the start.
    """

    _http: Connection

    async def events(
        self, ids: str | Iterable[str] | None = None, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[JSONObject, None]:
        """The events of these jobs, or of all, in order, each once.

        Ends when the named jobs have ended; without *follow*, at the newest event. Raises
        LogChanged when *after* is not a position of this log.
        """
        path, params = "/v1/events", {}
        if isinstance(ids, str):
            path = job_path(ids, "events")
        elif ids is not None and not (params := query_params(id=ids))["id"]:
            return  # a request without ids would be about all jobs
        async with aclosing(self._events(path, params, after, follow=follow)) as events:
            async for event in events:
                yield event

    async def logs(
        self, job_id: str, *, after: int = 0, follow: bool = True
    ) -> AsyncGenerator[JSONObject, None]:
        """The lines of a job's log, in order, each once. Ends and raises as *events*."""
        path = job_path(job_id, "logs")
        async with aclosing(self._events(path, {}, after, follow=follow)) as lines:
            async for line in lines:
                yield line

    async def watch(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        after: int = 0,
        gone: bool = False,
        **filters: Any,
    ) -> AsyncGenerator[JSONObject, None]:
        """The present snapshot of each job, and a newer one whenever it changes.

        Changes may be skipped, never the newest. With *after*, only jobs that changed since that
        position. Ends when all the named jobs have ended; by *filters* (type, status, tag, owner,
        queue) it never ends. With *gone*, a job that was deleted or has expired appears once more:
        as `job_id`, `status` "gone", `expired_at` and `position` alone.
        """
        params = query_params(id=[ids] if isinstance(ids, str) else ids, **filters)
        if params.get("id") == "":
            return
        async with aclosing(self._http.messages("/v1/jobs", params, after)) as messages:
            async for message in messages:
                if message.event == "job":
                    yield orjson.loads(message.data)
                elif message.event == "gone" and gone:
                    yield {**orjson.loads(message.data), "status": "gone"}

    async def wait(self, job_id: str) -> JSONObject:
        """The job, once it has ended."""
        async with aclosing(self.watch(job_id)) as snapshots:
            async for job in snapshots:
                if job["status"] in FINISHED:
                    return job
        return await self._http.call("GET", job_path(job_id))

    async def _events(
        self, path: str, params: dict[str, str], after: int, *, follow: bool
    ) -> AsyncGenerator[JSONObject, None]:
        if not follow:
            async for event in self._event_pages(path, params, after):
                yield event
            return
        async with aclosing(self._http.messages(path, params, after)) as messages:
            async for message in messages:
                if message.event == "reset":
                    raise LogChanged
                if message.event == "event":
                    event = orjson.loads(message.data)
                    if event["position"] > after:
                        after = event["position"]
                        yield event

    async def _event_pages(
        self, path: str, params: dict[str, str], after: int
    ) -> AsyncGenerator[JSONObject, None]:
        head = None
        while head is None or after < head:
            query = {**params, "after": str(after), "limit": "1000"}
            page = await self._http.call("GET", path, params=query)
            head = head or page["head"]
            for event in page["events"]:
                yield event
            if page["end"] or page["next"] == after:
                return
            after = page["next"]
