"""Pauses between tries."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between tries: *first_s*, each later one *factor* times as long, up to *max_s*."""

    first_s: float = 0.5
    factor: float = 2.0
    max_s: float = 10.0

    def delay_s(self, tries: int) -> float:
        """After that many of them; with jitter: what failed together shall not return together."""
        delay_s = self.first_s
        for _ in range(tries - 1):
            if delay_s >= self.max_s:
                break
            delay_s *= self.factor
        return min(delay_s, self.max_s) * random.uniform(0.75, 1.25)  # noqa: S311
