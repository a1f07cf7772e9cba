"""Limits of what one owner has open at a time: streams, and long polls."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from eventjobs.auth.principals import Principal
from eventjobs.errors import OwnerLimit


class OwnerLimits:
    """Counts what each owner has open: at most *limit*; None is no limit. Principals without an
    owner have none.
    """

    def __init__(self, limit: int | None, name: str) -> None:
        self._limit = limit
        self._name = name
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, principal: Principal, *, waits: bool = True) -> Iterator[None]:
        """Count one more while the block runs, unless it does not wait. Raises OwnerLimit."""
        if not waits:
            yield
            return
        self.acquire(principal)
        try:
            yield
        finally:
            self.release(principal)

    def acquire(self, principal: Principal) -> None:
        """Count one more until *release*. Raises OwnerLimit."""
        owner, limit = principal.owner, self._limit
        if owner is None or limit is None:
            return
        if self._open[owner] >= limit:
            raise OwnerLimit(f"an owner has at most {limit} open {self._name}")
        self._open[owner] += 1

    def release(self, principal: Principal) -> None:
        """Count one less."""
        owner = principal.owner
        if owner is None or self._limit is None:
            return
        self._open[owner] -= 1
        if not self._open[owner]:
            del self._open[owner]
