"""Exponential backoff: the delays between attempts of anything that may fail."""

import random
from dataclasses import dataclass

#: Delays that are not randomized.
NO_JITTER = (1.0, 1.0)
#: Delays that are never shorter than stated.
POSITIVE_JITTER = (1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays of *first_s* seconds, each *factor* times the one before, at most *max_s*.

    Each delay is multiplied by a random number between the two of *jitter*, so that clients that
    failed together do not return together.
    """

    first_s: float = 0.5
    factor: float = 2.0
    max_s: float = 10.0
    jitter: tuple[float, float] = (0.75, 1.25)

    def delay_s(self, failures: int) -> float:
        """The seconds to wait after the attempt with this number, from 1, has failed."""
        delay_s = self.first_s
        for _ in range(failures - 1):
            if not 0 < delay_s < self.max_s:  # no overflow, and no long loop
                break
            delay_s *= self.factor
        return min(delay_s, self.max_s) * random.uniform(*self.jitter)  # noqa: S311
