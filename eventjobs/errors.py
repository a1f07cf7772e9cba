"""Every error eventjobs raises, as one tree that knows nothing of HTTP.

EventjobsError
├── Rejected                 a decision said no; nothing was written
│   ├── JobNotFound
│   ├── JobGone              it was deleted or has expired
│   ├── JobUnreadable        one of its events cannot be read
│   ├── JobExists            the id is taken by another specification
│   ├── KeyReused            the idempotency key belongs to another specification
│   ├── WrongState           the job's status does not allow it
│   ├── PreconditionFailed   the job is not in the version that the command is for
│   ├── UnknownStep          the job has no such completed step
│   ├── LimitReached         there are as many webhooks, or paused queues, as there may be
│   ├── TooManySteps         the job has as many as a job may have
│   └── StaleAttempt         a report from an attempt that is no longer the job's
├── WebhookNotFound
├── InvalidInput             the caller's data; `errors` names the fields; also a ValueError
│   ├── NotJSON              also a TypeError
│   ├── UnknownType
│   ├── UnknownSchedule
│   ├── UnknownArtifact
│   ├── UnknownJob           a job that a submission names is not there
│   ├── ReservedId           an id that only the service gives
│   └── TooLarge
│       └── StepTooLarge
├── LogError
│   ├── Conflict             somebody else appended first; load and decide again
│   ├── Overloaded           too many appends are waiting
│   ├── DiskFull             no room; reads go on
│   ├── LogUnavailable       the log does not take writes now; nothing was written
│   ├── OutcomeUnknown       the event may or may not be there; repeat with the same id
│   └── CorruptLog           a stored event cannot be read
├── DataDirectoryError       raised when opening
│   ├── DirectoryLocked
│   ├── NotOurs
│   ├── TooNew
│   ├── LogDamaged           SQLite cannot read it
│   ├── LogGone              it was removed or replaced while it was open
│   ├── LogMissing           there is none beside files that belong to one
│   ├── LogReplaced          it is not the one that the files beside it belong to
│   ├── SecretKeyMissing
│   └── SecretKeyUnusable
├── OutboundError            a request of ours to somebody else
│   ├── OutboundRefused      this service does not talk to such an address
│   └── OutboundFailed       no answer came
│       └── OutboundTimeout  not in time
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
    """The resource is not as the request wants it to be; nothing was done."""

    code = "precondition_failed"


class UnknownStep(Rejected):
    """The job has no such completed step."""

    code = "unknown_step"


class LimitReached(Rejected):
    """There are as many as there may be; remove some that are not needed."""

    code = "limit_reached"


class TooManySteps(Rejected):
    """The job has as many steps as a job may have; put more work into each of them."""

    code = "too_many_steps"


class StaleAttempt(Rejected):
    """This attempt no longer holds the job."""

    code = "stale_attempt"


class WebhookNotFound(EventjobsError):
    """There is no such webhook."""

    code = "webhook_not_found"


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
    """There is no such job to wait for, or to be a part of."""

    code = "unknown_job"


class ReservedId(InvalidInput):
    """Ids of this form are given by the service alone; choose another UUID."""

    code = "reserved_id"


class TooLarge(InvalidInput):
    """The input is larger than this service accepts."""

    code = "too_large"


class StepTooLarge(TooLarge):
    """The result of a step is too large to be kept; store a file, and return its name."""

    code = "step_too_large"

    @classmethod
    def of(cls, name: str, size: int, size_max: int | None = None) -> Self:
        """For the step *name*, whose result has *size* bytes; a worker does not know how many it
        may have.
        """
        limit = "" if size_max is None else f", and may have {size_max}"
        return cls(
            f"the result of the step {name!r} has {size} bytes{limit}; store it as a file of the "
            "job, and return its name"
        )


class ArtifactDamaged(EventjobsError):
    """The stored file is not what was stored; upload it again to mend it."""

    code = "artifact_damaged"


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
    """The disk is full; reads go on, writes resume by themselves when there is room."""

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
        self.written = written  # something may be in a file that has no name any more


class LogDamaged(DataDirectoryError):
    """The file of the log is damaged; put it back from a backup."""

    code = "log_damaged"


class LogMissing(DataDirectoryError):
    """There is no log beside files that belong to one."""

    code = "log_missing"


class LogReplaced(DataDirectoryError):
    """The log is another one than the files beside it belong to."""

    code = "log_replaced"


class SecretKeyMissing(DataDirectoryError):
    """The secret key that belongs to the log is not there."""

    code = "secret_key_missing"


class SecretKeyUnusable(DataDirectoryError):
    """The file of the secret key does not hold one; put it back from a backup, or delete it."""

    code = "secret_key_unusable"


class OutboundError(EventjobsError):
    """A request to another service came to nothing."""

    code = "outbound_error"


class OutboundRefused(OutboundError):
    """This service does not talk to that address."""

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
    is for operators. `retryable=False` ends the job now, whatever attempts are left. With
    *retry_after_s* the next attempt is not before so many seconds, instead of the usual delay:
    a number from 0 on, or such a number as text; anything else leaves the delay as it is.
    """

    # Of a subclass whose __init__ does not call this one.
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
