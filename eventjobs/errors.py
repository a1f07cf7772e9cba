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
│       └── StepTooLarge
├── InvalidCredential        the key, token or session is unknown, expired or revoked
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

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)

    @property
    def message(self) -> str:
        return str(self.args[0] if self.args else self.__doc__)


class Rejected(EventjobsError):
    """The job does not allow this."""

    code = "rejected"


class JobNotFound(Rejected):
    """There is no such job."""

    code = "job_not_found"


class JobGone(Rejected):
    """This job was deleted or has expired."""

    code = "job_gone"

    def __init__(self, message: str | None = None, *, expired_us: int | None = None) -> None:
        super().__init__(message)
        self.expired_us = expired_us


class JobUnreadable(Rejected):
    """An event of this job cannot be read by this version; nothing is done with the job."""

    code = "job_unreadable"


class JobExists(Rejected):
    """A job with this id and another specification exists."""

    code = "job_exists"


class IdempotencyKeyReused(Rejected):
    """This Idempotency-Key was used with another specification."""

    code = "idempotency_key_reused"


class WrongState(Rejected):
    """The job's status does not allow this."""

    code = "wrong_state"


class PreconditionFailed(Rejected):
    """The resource is not in the version that the request requires; nothing was done."""

    code = "precondition_failed"


class UnknownStep(Rejected):
    """The job has no such completed step."""

    code = "unknown_step"


class LimitReached(Rejected):
    """The limit is reached; remove some that are not needed."""

    code = "limit_reached"


class TooManySteps(Rejected):
    """The job has the largest number of steps; put more work into each of them."""

    code = "too_many_steps"


class StaleAttempt(Rejected):
    """This attempt no longer holds the job."""

    code = "stale_attempt"


class WebhookNotFound(EventjobsError):
    """There is no such webhook."""

    code = "webhook_not_found"


class KeyNotFound(EventjobsError):
    """There is no such API key."""

    code = "key_not_found"


class InvalidInput(EventjobsError, ValueError):
    """The input is not valid."""

    code = "invalid_input"

    def __init__(
        self, message: str | None = None, errors: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.errors = errors or []


class NotJSON(InvalidInput, TypeError):
    """JSON cannot hold this value."""


class UnknownType(InvalidInput):
    """No handler is registered for this job type."""

    code = "unknown_type"


class UnknownSchedule(InvalidInput):
    """No schedule of this name is declared."""

    code = "unknown_schedule"


class UnknownArtifact(InvalidInput):
    """There is no such artifact; upload it first."""

    code = "unknown_artifact"


class UnknownJob(InvalidInput):
    """The submission names a job that does not exist."""

    code = "unknown_job"


class ReservedId(InvalidInput):
    """Only the service makes ids of this form; choose another UUID."""

    code = "reserved_id"


class TooLarge(InvalidInput):
    """The input is larger than this service accepts."""

    code = "too_large"


class StepTooLarge(TooLarge):
    """The result of a step is too large; store a file, and return its name."""

    code = "step_too_large"

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


class ArtifactDamaged(EventjobsError):
    """The stored file is not what was uploaded; upload it again to repair it."""

    code = "artifact_damaged"


class InvalidCredential(EventjobsError):
    """The credential is unknown, expired or revoked."""

    code = "invalid_credential"


class LogError(EventjobsError):
    """The event log could not do this."""

    code = "log_error"


class Conflict(LogError):
    """The job has moved on since it was read."""

    code = "conflict"


class Overloaded(LogError):
    """Too many writes are waiting; try again shortly."""

    code = "overloaded"


class DiskFull(LogError):
    """The disk is full; reads go on, and writes resume by themselves when there is space."""

    code = "disk_full"


class LogUnavailable(LogError):
    """The log does not accept writes now; nothing was written."""

    code = "log_unavailable"


class OutcomeUnknown(LogError):
    """The write may have happened; repeat it with the same id to find out."""

    code = "outcome_unknown"


class CorruptLog(LogError):
    """A stored event cannot be read."""

    code = "corrupt_log"


class DataDirectoryError(EventjobsError):
    """The data directory cannot be used."""

    code = "data_directory"


class DirectoryLocked(DataDirectoryError):
    """Another process is writing to this data directory."""

    code = "data_directory_locked"


class ForeignDatabase(DataDirectoryError):
    """This database was not made by eventjobs."""

    code = "not_an_eventjobs_database"


class DatabaseTooNew(DataDirectoryError):
    """This database was made by a newer eventjobs."""

    code = "database_too_new"


class LogGone(DataDirectoryError):
    """The file of the log was removed or replaced while it was open."""

    code = "log_gone"

    def __init__(self, message: str | None = None, *, written: bool = False) -> None:
        super().__init__(message)
        self.written = written  # an event may be in the deleted file


class LogDamaged(DataDirectoryError):
    """The file of the log is damaged; put it back from a backup."""

    code = "log_damaged"


class LogMissing(DataDirectoryError):
    """There is no log beside files that belong to one; put it back from a backup."""

    code = "log_missing"


class LogReplaced(DataDirectoryError):
    """The log is not the one that the files beside it belong to."""

    code = "log_replaced"


class SecretKeyMissing(DataDirectoryError):
    """The secret key that belongs to the log is missing."""

    code = "secret_key_missing"


class SecretKeyUnusable(DataDirectoryError):
    """The file of the secret key does not hold one; put it back from a backup, or delete it."""

    code = "secret_key_unusable"


class OutboundError(EventjobsError):
    """A request to another service failed."""

    code = "outbound_error"


class OutboundRefused(OutboundError):
    """This service sends no requests to that address."""

    code = "outbound_refused"


class OutboundFailed(OutboundError):
    """The other service did not answer."""

    code = "outbound_failed"


class OutboundTimeout(OutboundFailed):
    """The other service did not answer in time."""

    code = "outbound_timeout"


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
