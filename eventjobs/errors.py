"""Every error that eventjobs raises, as one tree. None of them depends on HTTP.

EventjobsError
├── Rejected                 a decision refused the command; nothing was written
│   ├── JobNotFound
│   ├── JobGone              it was deleted or has expired
│   ├── JobUnreadable        one of its events cannot be read
│   ├── JobExists            the id is taken by another specification
│   ├── IdempotencyKeyReused the key was used with another specification
│   ├── WrongState           the job's status does not allow it
│   ├── PreconditionFailed   the job is not in the version that the command is for
│   ├── UnknownStep          the job has no such completed step
│   ├── LimitReached         the number of webhooks, or of pauses, is at its limit
│   ├── TooManySteps         the number of the job's steps is at its limit
│   └── StaleAttempt         a report from an attempt that no longer holds the job
├── WebhookNotFound
├── KeyNotFound              there is no such API key
├── InvalidInput             the caller's data; `errors` names the fields; also a ValueError
│   ├── NotJSON              also a TypeError
│   ├── UnknownType
│   ├── UnknownSchedule
│   ├── UnknownArtifact
│   ├── UnknownJob           a job that a submission names does not exist
│   ├── ReservedId           an id of the form that only the service makes
│   └── TooLarge
│       ├── OwnerBytesLimit  the files of one owner have as many bytes as they may have
│       └── StepTooLarge
├── InvalidCredential        the key, token or session is unknown, expired or revoked
├── KeysUnavailable          the keys that tokens are verified with were never fetched
├── OwnerLimit               the owner has too many queued jobs, streams or long polls
├── LogError
│   ├── Conflict             another append to the stream was first; load and decide again
│   ├── Overloaded           too many appends are waiting
│   ├── DiskFull             the disk is full; reads go on
│   ├── LogUnavailable       the log does not accept writes now; nothing was written
│   ├── OutcomeUnknown       the event may or may not be in the log; repeat with the same id
│   └── CorruptLog           a stored event cannot be read
├── DataDirectoryError       raised when the data directory is opened
│   ├── DirectoryLocked
│   ├── ForeignDatabase
│   ├── DatabaseTooNew
│   ├── LogDamaged           SQLite cannot read the log
│   ├── LogGone              the log was removed or replaced while it was open
│   ├── LogMissing           there is no log beside files that belong to one
│   ├── LogReplaced          the log is not the one that the files beside it belong to
│   ├── SecretKeyMissing
│   └── SecretKeyUnusable
├── OutboundError            a request to another service failed
│   ├── OutboundRefused      the address is not allowed; no request was sent
│   └── OutboundFailed       no response
│       └── OutboundTimeout  no response in time
└── JobError                 raised by handlers to end an attempt with a code of their own
"""

from typing import Any, ClassVar, Self


class EventjobsError(Exception):
    """Something went wrong."""

    #: For programs; stable.
    code: ClassVar[str] = "error"

    def __init_subclass__(cls, *, code: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if code is not None:
            cls.code = code

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)

    @property
    def message(self) -> str:
        return str(self.args[0] if self.args else self.__doc__)


class Rejected(EventjobsError, code="rejected"):
    """The job does not allow this."""


class JobNotFound(Rejected, code="job_not_found"):
    """There is no such job."""


class JobGone(Rejected, code="job_gone"):
    """This job was deleted or has expired."""

    def __init__(self, message: str | None = None, *, expired_us: int | None = None) -> None:
        super().__init__(message)
        self.expired_us = expired_us


class JobUnreadable(Rejected, code="job_unreadable"):
    """An event of this job cannot be read by this version; nothing is done with the job."""


class JobExists(Rejected, code="job_exists"):
    """A job with this id and another specification exists."""


class IdempotencyKeyReused(Rejected, code="idempotency_key_reused"):
    """This Idempotency-Key was used with another specification."""


class WrongState(Rejected, code="wrong_state"):
    """The job's status does not allow this."""


class PreconditionFailed(Rejected, code="precondition_failed"):
    """The resource is not in the version that the request requires; nothing was done."""


class UnknownStep(Rejected, code="unknown_step"):
    """The job has no such completed step."""


class LimitReached(Rejected, code="limit_reached"):
    """The limit is reached; remove some that are not needed."""


class TooManySteps(Rejected, code="too_many_steps"):
    """The job has the largest number of steps; put more work into each of them."""


class StaleAttempt(Rejected, code="stale_attempt"):
    """This attempt no longer holds the job."""


class WebhookNotFound(EventjobsError, code="webhook_not_found"):
    """There is no such webhook."""


class KeyNotFound(EventjobsError, code="key_not_found"):
    """There is no such API key."""


class InvalidInput(EventjobsError, ValueError, code="invalid_input"):
    """The input is not valid."""

    def __init__(
        self, message: str | None = None, errors: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.errors = errors or []


class NotJSON(InvalidInput, TypeError):
    """JSON cannot hold this value."""


class UnknownType(InvalidInput, code="unknown_type"):
    """No handler is registered for this job type."""


class UnknownSchedule(InvalidInput, code="unknown_schedule"):
    """No schedule of this name is declared."""


class UnknownArtifact(InvalidInput, code="unknown_artifact"):
    """There is no such artifact; upload it first."""


class UnknownJob(InvalidInput, code="unknown_job"):
    """The submission names a job that does not exist."""


class ReservedId(InvalidInput, code="reserved_id"):
    """Only the service makes ids of this form; choose another UUID."""


class TooLarge(InvalidInput, code="too_large"):
    """The input is larger than this service accepts."""


class OwnerBytesLimit(TooLarge, code="owner_bytes_limit"):
    """The files of this owner have as many bytes as they may have."""


class StepTooLarge(TooLarge, code="step_too_large"):
    """The result of a step is too large; store a file, and return its name."""

    @classmethod
    def of(cls, name: str, size: int, size_max: int | None = None) -> Self:
        """The error for the step *name*, whose result has *size* bytes. A remote worker has no
        *size_max*: it does not know the limit.
        """
        limit = "" if size_max is None else f", and may have {size_max}"
        return cls(
            f"the result of the step {name!r} has {size} bytes{limit}; store it as a file of the "
            "job, and return its name"
        )


class ArtifactDamaged(EventjobsError, code="artifact_damaged"):
    """The stored file is not what was uploaded; upload it again to repair it."""


class InvalidCredential(EventjobsError, code="invalid_credential"):
    """The credential is unknown, expired or revoked."""


class KeysUnavailable(EventjobsError, code="keys_unavailable"):
    """The keys that tokens are verified with could not be fetched; try again shortly."""


class OwnerLimit(EventjobsError, code="owner_limit"):
    """This owner has as many of these as it may have; try again when some have ended."""


class LogError(EventjobsError, code="log_error"):
    """The event log could not do this."""


class Conflict(LogError, code="conflict"):
    """The job has moved on since it was read."""


class Overloaded(LogError, code="overloaded"):
    """Too many writes are waiting; try again shortly."""


class DiskFull(LogError, code="disk_full"):
    """The disk is full; reads go on, and writes resume by themselves when there is space."""


class LogUnavailable(LogError, code="log_unavailable"):
    """The log does not accept writes now; nothing was written."""


class OutcomeUnknown(LogError, code="outcome_unknown"):
    """The write may have happened; repeat it with the same id to find out."""


class CorruptLog(LogError, code="corrupt_log"):
    """A stored event cannot be read."""


class DataDirectoryError(EventjobsError, code="data_directory"):
    """The data directory cannot be used."""


class DirectoryLocked(DataDirectoryError, code="data_directory_locked"):
    """Another process is writing to this data directory."""


class ForeignDatabase(DataDirectoryError, code="not_an_eventjobs_database"):
    """This database was not made by eventjobs."""


class DatabaseTooNew(DataDirectoryError, code="database_too_new"):
    """This database was made by a newer eventjobs."""


class LogGone(DataDirectoryError, code="log_gone"):
    """The file of the log was removed or replaced while it was open."""

    def __init__(self, message: str | None = None, *, written: bool = False) -> None:
        super().__init__(message)
        self.written = written  # an event may be in the deleted file


class LogDamaged(DataDirectoryError, code="log_damaged"):
    """The file of the log is damaged; put it back from a backup."""


class LogMissing(DataDirectoryError, code="log_missing"):
    """There is no log beside files that belong to one; put it back from a backup."""


class LogReplaced(DataDirectoryError, code="log_replaced"):
    """The log is not the one that the files beside it belong to."""


class SecretKeyMissing(DataDirectoryError, code="secret_key_missing"):
    """The secret key that belongs to the log is missing."""


class SecretKeyUnusable(DataDirectoryError, code="secret_key_unusable"):
    """The file of the secret key does not hold one; put it back from a backup, or delete it."""


class OutboundError(EventjobsError, code="outbound_error"):
    """A request to another service failed."""


class OutboundRefused(OutboundError, code="outbound_refused"):
    """This service sends no requests to that address."""


class OutboundFailed(OutboundError, code="outbound_failed"):
    """The other service did not answer."""


class OutboundTimeout(OutboundFailed, code="outbound_timeout"):
    """The other service did not answer in time."""


class JobError(EventjobsError):
    """The job failed.

    `code` is stable and for programs, `message` is for people, `details` (anything JSON holds)
    is for operators. `retryable=False` fails the job now, even with attempts left. *retry_after_s*,
    in seconds, replaces the usual delay before the next attempt: a number from 0 on, or such a
    number as text. Any other value is ignored.
    """

    # For a subclass whose __init__ does not call this one.
    error_code: str = "handler_error"
    retryable: bool = True
    details: Any = None
    retry_after_s: float | None = None

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = True,
        details: Any = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.error_code = code
        self.retryable = retryable
        self.details = details
        self.retry_after_s = retry_after_s
