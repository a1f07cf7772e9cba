"""Retries within one attempt: how many, after which delays, and their lines in the job's log."""

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

#: Errors of a write that may succeed a moment later.
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


class WriteLine(Protocol):
    """Adds a line to a job's log."""

    def __call__(self, message: str, level: str = ..., **fields: str) -> None: ...


class TenacityOptions(TypedDict):
    """Arguments of tenacity.Retrying and AsyncRetrying, all but `sleep`."""

    stop: tenacity.stop_after_attempt
    wait: Callable[[tenacity.RetryCallState], float]
    retry: tenacity.retry_if_exception
    before: Callable[[tenacity.RetryCallState], None]
    reraise: bool


def retry_options(
    write_line: WriteLine,
    label: str,
    attempts: int,
    backoff: Backoff,
    is_retried: Callable[[BaseException], bool],
) -> TenacityOptions:
    """Up to *attempts* tries while *is_retried* accepts the error; a log line for each try."""
    attempts, label = read_limit(attempts, "attempts"), storable_text(label)

    def wait(state: tenacity.RetryCallState) -> float:
        return backoff.delay_s(state.attempt_number)

    failed: dict[str, str] = {}

    def before(state: tenacity.RetryCallState) -> None:
        level = "warning" if failed else "info"
        write_line(f"{label}: Attempt {state.attempt_number}/{attempts}", level, **failed)

    def note_and_check(error: BaseException) -> bool:
        failed["error"] = describe(error)
        return is_retried(error)

    return TenacityOptions(
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(note_and_check),
        before=before,
        reraise=True,
    )


def should_retry(error: BaseException, on: Errors) -> bool:
    """Whether *error* is one of *on* and is no JobError with `retryable=False`."""
    kind = type(error)  # and not isinstance: `__class__` may be a property that raises
    if issubclass(kind, JobError) and attribute(error, "retryable", True) is False:
        return False
    return issubclass(kind, on)


def is_transient(error: BaseException) -> bool:
    return issubclass(type(error), OSError) and attribute(error, "errno", None) in TRANSIENT


@contextmanager
def raise_if_not_stored(name: str) -> Iterator[None]:
    """Raise JobError `artifact_not_stored` in place of a transient error of the last try."""
    try:
        yield
    except OSError as error:
        if not is_transient(error):
            raise
        raise JobError(
            "artifact_not_stored", f"{name} could not be stored: {describe(error)}"
        ) from error
