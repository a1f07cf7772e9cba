"""A service that does not answer: logged once and then seldom, and asked again after pauses that
grow. One that refuses for good is asked no more.
"""

import asyncio
import random

from eventjobs.client.errors import ApiError, Unreachable, WrongAddress
from eventjobs.clock import Clock, sleep
from eventjobs.observability.logging import get_logger

#: Between two attempts: the first pause, and the longest.
AGAIN_S, AGAIN_MAX_S = 0.1, 1.0
#: Between two lines about the same trouble.
LOG_INTERVAL_S = 300.0
#: Refusals of this moment; all others below 500 are of the request (RFC 9110, 15.5; RFC 8470).
TEMPORARY_STATUSES = frozenset({408, 425, 429})
#: And failures that do not pass: the service does not have what is asked for.
PERMANENT_STATUSES = frozenset({501, 505})


class Outage:
    """What is wrong *now*, by its code; None while the service answers."""

    def __init__(self, clock: Clock) -> None:
        self.code: str | None = None
        self._clock = clock
        self._delay_s = AGAIN_S
        self._began_s = self._logged_s = 0.0
        #: The final one, once there is one.
        self.refused: asyncio.Future[ApiError | Unreachable] = (
            asyncio.get_running_loop().create_future()
        )
        self._log = get_logger("eventjobs.worker")

    def is_final(self, error: Unreachable | ApiError, *, known: bool) -> bool:
        """Whether asking again is of no use: the address, the worker or its settings are wrong.

        A service that is *known* to be at the address may be hidden for a while by what is in
        front of it, so then only its own refusals count.
        """
        if isinstance(error, Unreachable):
            final = isinstance(error, WrongAddress) and not known
        elif known and error.code == f"http_{error.status}":
            final = False
        else:
            status = error.status
            final = status in PERMANENT_STATUSES or (
                status < 500 and status not in TEMPORARY_STATUSES
            )
        if final and not self.refused.done():
            self.refused.set_result(error)
        return final

    async def pause(self, error: Unreachable | ApiError) -> None:
        """Return when it makes sense to try again."""
        self.log(error)
        delay_s = self._delay_s * random.uniform(1, 1.5)  # noqa: S311
        self._delay_s = min(self._delay_s * 2, AGAIN_MAX_S)
        await sleep(self._clock, delay_s)

    def log(self, error: Unreachable | ApiError) -> None:
        """Log it, unless that was done a short while ago."""
        code = Unreachable.code if isinstance(error, Unreachable) else error.code
        now_s = self._clock.monotonic_s()
        if self.code is None:
            self._began_s = now_s
        if self.code != code or now_s - self._logged_s >= LOG_INTERVAL_S:
            self.code, self._logged_s = code, now_s
            for_s = round(now_s - self._began_s)
            self._log.warning(
                "service does not answer; trying on", code=code, why=str(error), for_s=for_s
            )

    def end(self) -> None:
        """It has answered."""
        if self.code is not None:
            self._log.info("service answers again")
        self.code, self._delay_s = None, AGAIN_S
