"""Log lines of the service about attempts that start or fail."""

import logging

from eventjobs.domain.job import Job
from eventjobs.domain.mask import Mask
from eventjobs.domain.outcomes import Failed
from eventjobs.observability.logging import StructuredLogger


def log_start(log: StructuredLogger, job: Job) -> None:
    """A DEBUG line for an attempt that starts."""
    log.debug("attempt started", job_id=job.job_id, type=job.spec.type, attempt=job.attempt)


def log_failure(
    log: StructuredLogger, job: Job, failed: Failed, *, ended_us: int, final: bool | None = None
) -> None:
    """A line for an attempt that failed: ERROR when it is *final*, else WARNING.

    A remote worker leaves *final* out: it is then estimated from the attempt's number.
    """
    if final is None:
        final = not failed.retryable or job.attempt >= job.spec.max_attempts
    details = failed.details if isinstance(failed.details, dict) else {}
    trace = failed.trace or details.get("traceback")
    message = failed.message
    if (mask := Mask.of(job.spec)) is not None:
        message = mask.text(message)
        trace = mask.text(trace) if isinstance(trace, str) else None
    log.log(
        logging.ERROR if final else logging.WARNING,
        "attempt failed",
        job_id=job.job_id,
        type=job.spec.type,
        attempt=job.attempt,
        code=failed.code,
        error=message,
        # Not negative: a wall clock may be set back, and a worker's may differ from the service's.
        duration_s=max(0.0, round((ended_us - (job.started_us or ended_us)) / 1e6, 3)),
        **({"exception": trace} if isinstance(trace, str) else {}),
    )
