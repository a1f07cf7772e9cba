"""Reports of external services on their attempts, each with the token of its attempt."""

from aiohttp import web

from eventjobs.attempts.fencing import End, ReportResult
from eventjobs.domain.outcomes import AttemptHolder, Succeeded
from eventjobs.errors import InvalidInput
from eventjobs.http.auth import bearer_of
from eventjobs.http.request_errors import BadToken
from eventjobs.http.schemas.callbacks import Callback
from eventjobs.service import Service


def holder_of(service: Service, request: web.Request, job_id: str) -> AttemptHolder:
    """The attempt of the job whose token *request* has.

    Raises BadToken, and the same for a job that does not exist.
    """
    attempt = service.master_key.attempt_of(bearer_of(request), job_id)
    if attempt is None:
        raise BadToken(headers={"WWW-Authenticate": "Bearer"})
    return AttemptHolder(job_id, attempt)


async def record(service: Service, holder: AttemptHolder, callback: Callback) -> ReportResult:
    """Record *callback* about the attempt of *holder*.

    Raises InvalidInput where it names another attempt, and as AttemptReports does.
    """
    if callback.attempt not in (None, holder.attempt):
        message = f"the token is for attempt {holder.attempt}"
        raise InvalidInput("the body does not fit", [{"field": "attempt", "message": message}])
    if (progress := callback.progress) is not None:
        reports = [progress.event(holder.attempt)]
        return await service.attempt_reports.report(holder, "progress", reports)
    outcome = callback.outcome()
    end: End = "complete" if isinstance(outcome, Succeeded) else "fail"
    return await service.attempt_reports.record_outcome(holder, end, outcome)
