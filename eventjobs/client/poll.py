"""Polling the status of a job at an address of a dialect, or of the API itself."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, repeat
from uuid import UUID

import orjson
from yarl import URL

from eventjobs.backoff import NO_JITTER, Backoff
from eventjobs.client.errors import ApiError, Unreachable, WrongAddress
from eventjobs.client.requests import JSONObject
from eventjobs.client.streams import StreamsAPI
from eventjobs.clock import Clock, sleep, timeout
from eventjobs.domain.job import FINISHED
from eventjobs.errors import EventjobsError

#: Seconds between two requests. The last number is repeated.
DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
#: Seconds after which a job that has not ended is given up.
GIVE_UP_S = 600.0
#: Seconds until a request without a response is given up.
REQUEST_S = 10.0
#: How often a request that the server could not serve is repeated, and the delays before.
RETRIES_MAX = 5
SERVER_ERROR_BACKOFF = Backoff(2, max_s=32, jitter=NO_JITTER)

#: The id at the end of the address of a job: a UUID, or `job_` and its digits.
_ID = re.compile(r"/jobs?(?:-status)?/(?:job_)?([0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12})$")


class PollAPI(StreamsAPI):
    """The part of the client that polls. It needs no stream, and uses one where there is one."""

    _clock: Clock

    async def poll(
        self,
        path: str,
        *,
        delays_s: Sequence[float] = DELAYS_S,
        give_up_s: float = GIVE_UP_S,
        stream: bool = True,
        on_status: Callable[[JSONObject], object] = lambda job: None,
    ) -> JSONObject:
        """The job at *path*, such as `/api/job-status/{id}`, once it has ended.

        It is requested after each of *delays_s*, and *on_status* is called with each response.
        With *stream*, it is requested as soon as the job has ended, where the service has a stream
        of it. A request that the server could not serve (5xx, 429, no response within 10 s) is
        repeated up to 5 times, after 2 to 32 s. Raises TimeoutError after *give_up_s*, ApiError for
        a refusal, as for an unknown job, and Unreachable.
        """
        job_id = _ID.search(path) if stream else None
        ended = asyncio.ensure_future(self._wait_for_end(None if job_id is None else job_id[1]))
        try:
            async with timeout(self._clock, give_up_s):
                for delay_s in chain(delays_s, repeat(delays_s[-1])):
                    job = await self._status(path)
                    on_status(job)
                    if job.get("status") in FINISHED:
                        return job
                    await self._pause(delay_s, ended)
        except TimeoutError:
            raise TimeoutError("Job polling timeout") from None
        finally:
            ended.cancel()
            await asyncio.wait([ended])  # it closes its stream before the session is closed
        raise AssertionError("a job has ended, or the deadline has passed")

    async def _wait_for_end(self, job_id: str | None) -> None:
        """Return when the job has ended; never where the service has no stream of it."""
        if job_id is not None:
            with suppress(EventjobsError):
                await self.wait(str(UUID(job_id)))
                return
        await asyncio.Event().wait()

    async def _pause(self, delay_s: float, ended: asyncio.Future[None]) -> None:
        """Wait for *delay_s*, or for *ended* if that is to come."""
        pause = asyncio.ensure_future(sleep(self._clock, delay_s))
        try:
            first = (pause,) if ended.done() else (pause, ended)
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()

    async def _status(self, path: str) -> JSONObject:
        """The response to a request, which is repeated when the server could not serve it."""
        for failures in range(1, RETRIES_MAX + 2):
            delay_s = SERVER_ERROR_BACKOFF.delay_s(failures)
            try:
                return await self._request(path)
            except ApiError as error:
                if error.is_final or failures > RETRIES_MAX:
                    raise
                delay_s = max(delay_s, error.retry_after_s or 0.0)
            except Unreachable as error:
                if isinstance(error, WrongAddress) or failures > RETRIES_MAX:
                    raise
            await sleep(self._clock, delay_s)
        raise AssertionError("the last attempt returns or raises")

    async def _request(self, path: str) -> JSONObject:
        try:
            async with (
                timeout(self._clock, REQUEST_S),
                self._http.request("GET", path) as response,
            ):
                with suppress(orjson.JSONDecodeError):
                    if isinstance(job := orjson.loads(await response.read()), dict):
                        return job
                raise self._http.wrong_address(response)
        except TimeoutError as error:
            raise Unreachable(f"there was no response within {REQUEST_S:g} s") from error


def split_address(url: str) -> tuple[str, str]:
    """The address of the service, and the path with its query."""
    address = URL(url)
    return str(address.origin()), address.raw_path_qs
