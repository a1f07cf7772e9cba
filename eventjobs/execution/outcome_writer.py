"""Records outcomes through a job source, however long the log takes to accept them."""

import asyncio

from eventjobs.clock import sleep
from eventjobs.domain.outcomes import Failed, Outcome
from eventjobs.errors import InvalidInput, LogError, Rejected
from eventjobs.execution.attempt import RunningAttempt
from eventjobs.execution.source import RECORD_BACKOFF, JobSource
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import summary
from eventjobs.storable import storable_text

_LOG = get_logger("eventjobs.runner")


class OutcomeWriter:
    """Records the outcomes of a runner's attempts."""

    def __init__(self, source: JobSource) -> None:
        self._source = source
        self._is_closed = False

    def close(self) -> None:
        """Let a cancel end *record*. Until then cancels are ignored: a handler may cause them."""
        self._is_closed = True

    async def record(self, attempt: RunningAttempt, outcome: Outcome) -> None:
        """Record the outcome, after the attempt's reports; retried until the log accepts it.

        An outcome that cannot be recorded for another reason is replaced by a failure.
        """
        job_id, tries, replaced = attempt.job.job_id, 0, False
        while True:
            try:
                await attempt.reporter.flush()
                return await self._source.record_outcome(attempt.job, outcome)
            except Rejected as error:
                return _LOG.warning("outcome refused", job_id=job_id, error=error.code)
            except asyncio.CancelledError:
                if self._is_closed or (task := asyncio.current_task()) is None:
                    raise
                task.uncancel()
                continue
            except (LogError, OSError) as error:
                reason = error.code if isinstance(error, LogError) else str(error)
                _LOG.warning("outcome waits", job_id=job_id, error=reason)
            except Exception as error:  # noqa: BLE001 -- a bug here must not leave the job running
                outcome = _unrecordable(error)
                code, message = outcome.code, outcome.message
                _LOG.error("outcome cannot be recorded", job_id=job_id, code=code, error=message)
                if not replaced:
                    replaced = True
                    continue
            tries += 1
            await sleep(self._source.clock, RECORD_BACKOFF.delay_s(tries))


def _unrecordable(error: Exception) -> Failed:
    if isinstance(error, InvalidInput):  # a result larger than the largest artifact
        return Failed(error.code, error.message, False)
    message = f"the outcome of the attempt cannot be recorded: {summary(error)}"
    return Failed("outcome_not_recorded", storable_text(message), False)
