"""A service that does not answer: said once, and asked again after pauses that grow."""

import random

import structlog

from eventjobs.clock import Clock, sleep
from eventjobs.connection import Problem, Unreachable

#: Between two attempts: the first pause, and the longest.
AGAIN_S, AGAIN_MAX_S = 0.1, 1.0


class Trouble:
    """What is wrong *now*, by its code; None while the service answers."""

    def __init__(self, clock: Clock) -> None:
        self.now: str | None = None
        self._clock = clock
        self._delay_s = AGAIN_S
        self._log = structlog.get_logger("eventjobs.worker")

    async def pause(self, error: Unreachable | Problem) -> None:
        """Return when it makes sense to try again."""
        self.note(error)
        delay_s = self._delay_s * random.uniform(1, 1.5)  # noqa: S311
        self._delay_s = min(self._delay_s * 2, AGAIN_MAX_S)
        await sleep(self._clock, delay_s)

    def note(self, error: Unreachable | Problem) -> None:
        """Say it, unless that was said before."""
        code = Unreachable.code if isinstance(error, Unreachable) else error.code
        if self.now != code:
            self.now = code
            self._log.warning("service does not answer; trying on", code=code, why=str(error))

    def over(self) -> None:
        """It has answered."""
        if self.now is not None:
            self._log.info("service answers again")
        self.now, self._delay_s = None, AGAIN_S
