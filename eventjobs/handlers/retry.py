"""Trying again inside one attempt: how often, after how long, and what the job's log tells."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypedDict

import tenacity

from eventjobs.backoff import Backoff
from eventjobs.domain.validation import read_limit
from eventjobs.errors import JobError
from eventjobs.observability.tracebacks import attribute, describe
from eventjobs.storable import storable_text

Errors = type[Exception] | tuple[type[Exception], ...]

#: A file that could not be written may be written a moment later, after one of these.
TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


class Says(Protocol):
    """Adds a line to a job's log."""

    def __call__(self, message: str, level: str = ..., **fields: str) -> None: ...


class RetryOptions(TypedDict):
    """How tenacity is to try; all but what it sleeps with."""

    stop: tenacity.stop_after_attempt
    wait: Callable[[tenacity.RetryCallState], float]
    retry: tenacity.retry_if_exception
    before: Callable[[tenacity.RetryCallState], None]
    reraise: bool


def retry_options(
    say: Says,
    label: str,
    attempts: int,
    backoff: Backoff,
    again: Callable[[BaseException], bool],
) -> RetryOptions:
    """*attempts* tries while *again* says so; a line in the log for each."""
    attempts, label = read_limit(attempts, "attempts"), storable_text(label)

    def wait(state: tenacity.RetryCallState) -> float:
        return backoff.delay_s(state.attempt_number)

    failed: dict[str, str] = {}

    def before(state: tenacity.RetryCallState) -> None:
        level = "warning" if failed else "info"
        say(f"{label}: Attempt {state.attempt_number}/{attempts}", level, **failed)

    def noted(error: BaseException) -> bool:
        failed["error"] = describe(error)
        return again(error)

    return RetryOptions(
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(noted),
        before=before,
        reraise=True,
    )


def should_retry(error: BaseException, on: Errors) -> bool:
    """Whether *error* is one of *on*, and does not say of itself that no retry would mend it."""
    kind = type(error)  # and not isinstance: `__class__` may be a property that raises
    if issubclass(kind, JobError) and attribute(error, "retryable", True) is False:
        return False
    return issubclass(kind, on)


def is_transient(error: BaseException) -> bool:
    return issubclass(type(error), OSError) and attribute(error, "errno", None) in TRANSIENT


@contextmanager
def raise_if_not_stored(name: str) -> Iterator[None]:
    """Raise JobError `artifact_not_stored` when writing *name* again and again was no use."""
    try:
        yield
    except OSError as error:
        if not is_transient(error):
            raise
        raise JobError(
            "artifact_not_stored", f"{name} could not be stored: {describe(error)}"
        ) from error
