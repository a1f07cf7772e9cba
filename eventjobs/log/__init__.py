"""The append-only log of events: append, read, wait. All other parts read it by position.

docs/internals/group-commit.md describes how the SQLite log writes.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, InvalidInput

#: Longest job id or actor name, in characters. The longest name is that of a worker of a user: the
#: owner's, percent-encoded, and the worker's own.
TEXT_CHARS_MAX = 1000
#: Events in one page of *read* and *follow*.
PAGE_MAX = 512


#: Most events of one *append_many*.
APPEND_MAX = 1024


class NewEvent(NamedTuple):
    """An event to be recorded as number *version* + 1 of its job."""

    job_id: str
    version: int
    event: Event
    actor: str


class EventLog(Protocol):
    """An ordered, append-only record of every job's events.

    Positions are dense from 1 and become visible in order. All implementations pass one contract
    suite, tests/log/test_log.py.
    """

    @property
    def log_id(self) -> str:
        """A random name that the log gets when it is created: two logs never share it."""

    @property
    def reserved_after(self) -> int:
        """The position after which derived ids are reserved ones (domain/ids.py); 0 if new."""

    @property
    def head(self) -> int:
        """The newest position; 0 when empty."""

    async def append(self, job_id: str, version: int, event: Event, *, actor: str) -> Recorded:
        """Record *event* as number *version* + 1 of its job; return when it is durable.

        Raises Conflict when the job is not at *version*; Overloaded, DiskFull or LogUnavailable
        when nothing was written; OutcomeUnknown when it is unknown whether it was; TypeError or
        ValueError for what cannot be stored. A cancelled append may have happened.
        """

    async def append_many(self, events: Sequence[NewEvent]) -> list[Recorded | Conflict]:
        """Record up to APPEND_MAX events in one commit; return the outcome of each, in order.

        A conflict is of its event alone: the others are recorded. Events of one job have
        consecutive versions. Raises as *append* does for all events together; then none is
        recorded, or OutcomeUnknown says so.
        """

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        """Up to *limit* events of all jobs with positions above *after*."""

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        """One job's events with positions above *after*, oldest first."""

    async def wait(self, after: int, job_id: str | None = None) -> int:
        """The head, once it is above *after*; with *job_id*, once an event of that job is.

        An event of that job is not waited for when *after* is far behind the head: then it is read.
        Raises LogUnavailable when the log closes.
        """

    async def close(self) -> None:
        """Write what was accepted, then refuse. Waiters get LogUnavailable. Idempotent."""


async def follow(log: EventLog, after: int, limit: int = PAGE_MAX) -> AsyncIterator[list[Recorded]]:
    """Every event after position *after*, in batches. Never ends."""
    while True:
        if batch := await log.read(after, limit):
            after = batch[-1].position
            yield batch
        else:
            await log.wait(after)


def check_text(text: str) -> None:
    """Raises InvalidInput for text that SQLite would change: with NUL or half a surrogate pair.

    Also for text of more than TEXT_CHARS_MAX characters.
    """
    if not isinstance(text, str) or "\0" in text or len(text) > TEXT_CHARS_MAX:
        raise InvalidInput(f"only text of up to {TEXT_CHARS_MAX} characters without NUL is stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"this text cannot be stored: {error.reason}") from None


def without_position(events: Sequence[NewEvent], at_us: int) -> list[Recorded]:
    """*events* as they are recorded at *at_us*, with position 0.

    Raises ValueError when they are too many; TypeError, ValueError for what cannot be stored.
    """
    if not 0 < len(events) <= APPEND_MAX:
        raise ValueError(f"{len(events)} events; an append has 1 to {APPEND_MAX}")
    recorded = []
    for job_id, version, event, actor in events:
        check_text(job_id)
        check_text(actor)
        type, facts, body = encode(event)
        recorded.append(Recorded(0, job_id, version + 1, at_us, actor, event, type, facts, body))
    return recorded
