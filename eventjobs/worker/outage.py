"""An outage of the service that a worker works for: pauses between requests, and log lines.

Requests are repeated with growing pauses. A refusal that no repeat can change ends the worker.
"""

import asyncio

from eventjobs.backoff import POSITIVE_JITTER, Backoff
from eventjobs.client.errors import ApiError, Unreachable, WrongAddress
from eventjobs.clock import Clock, sleep
from eventjobs.observability.logging import get_logger

#: The pauses between requests.
BACKOFF = Backoff(0.1, max_s=1.0, jitter=POSITIVE_JITTER)
#: Seconds between two log lines about one outage.
LOG_INTERVAL_S = 300.0
#: Statuses below 500 that a repeat can change (RFC 9110, 15.5; RFC 8470).
TEMPORARY_STATUSES = frozenset({408, 425, 429})
#: Statuses from 500 on that no repeat changes: the service does not support the request.
PERMANENT_STATUSES = frozenset({501, 505})


class Outage:
    """The state of one connection. *code* is the present error; None while the service responds."""

    def __init__(self, clock: Clock) -> None:
        self.code: str | None = None
        self._clock = clock
        self._failures = 0
        self._started_s = self._logged_s = 0.0
        #: Done once the service has refused this worker for good.
        self.refused: asyncio.Future[ApiError | Unreachable] = (
            asyncio.get_running_loop().create_future()
        )
        self._log = get_logger("eventjobs.worker")

    def is_final(self, error: Unreachable | ApiError, *, confirmed: bool) -> bool:
        """Whether no repeat can succeed: the address, the worker or its settings are wrong.

        *confirmed*: the service has responded at this address before. A proxy in front of it may
        respond for a while, so then only refusals of the service itself are final.
        """
        if isinstance(error, Unreachable):
            final = isinstance(error, WrongAddress) and not confirmed
        elif confirmed and error.code == f"http_{error.status}":
            final = False
        else:
            status = error.status
            is_temporary = status >= 500 or status in TEMPORARY_STATUSES
            final = status in PERMANENT_STATUSES or not is_temporary
        if final and not self.refused.done():
            self.refused.set_result(error)
        return final

    async def pause(self, error: Unreachable | ApiError) -> None:
        """Wait before the next request, longer each time until *end*."""
        self.log(error)
        self._failures += 1
        await sleep(self._clock, BACKOFF.delay_s(self._failures))

    def log(self, error: Unreachable | ApiError) -> None:
        """Log *error*, unless the same was logged within LOG_INTERVAL_S."""
        code = Unreachable.code if isinstance(error, Unreachable) else error.code
        now_s = self._clock.monotonic_s()
        if self.code is None:
            self._started_s = now_s
        if self.code != code or now_s - self._logged_s >= LOG_INTERVAL_S:
            self.code, self._logged_s = code, now_s
            for_s = round(now_s - self._started_s)
            self._log.warning(
                "service does not answer; trying on", code=code, why=str(error), for_s=for_s
            )

    def end(self) -> None:
        """The service has responded."""
        if self.code is not None:
            self._log.info("service answers again")
        self.code, self._failures = None, 0
