"""A job for a front end that names it `job_…`: camelCase, progress from 0 to 1, UTC with `Z`."""

from typing import Any

from eventjobs.domain.error_codes import error_class
from eventjobs.domain.job import Job, Status
from eventjobs.domain.outcomes import RESULT, large_result
from eventjobs.http.dialects.job_ids import prefixed_id
from eventjobs.http.dialects.times import seconds
from eventjobs.projections import JobView

_STATUSES = {Status.QUEUED: "submitted", Status.RUNNING: "processing"}
#: Error codes by our code, else by its class. All others are `processing_error`.
_CODES = {"artifact_not_stored": "blob_upload_failed", "files_unavailable": "blob_upload_failed"}
_CODES_OF_CLASSES = {"timeout": "timeout", "worker": "worker_shutdown"}


def status_of(job: Job) -> str:
    """The status. A running job whose cancellation is requested is `cancelled` for this front end:
    it stops polling there, and never shows the job again.
    """
    if job.status == Status.RUNNING and job.cancel_requested_us is not None:
        return str(Status.CANCELLED)
    return _STATUSES.get(Status(job.status), job.status)


def cancelled_at(job: Job) -> str | None:
    """When the cancellation of a cancelled job was first requested."""
    return seconds(job.cancel_requested_us) if status_of(job) == Status.CANCELLED else None


def render(view: JobView, base_url: str) -> dict[str, Any]:
    """The status of the job. *base_url* is the address of the service for its reader."""
    job = view.job
    error = _error_of(job)
    path = _result_path(job)
    issues = {"issues": job.issues} if job.issues else {}
    return {
        "jobId": prefixed_id(job.job_id),
        "status": status_of(job),
        "progress": _fraction(view),
        "resultUrl": None if path is None else base_url + path,
        "error": None if error is None else error["code"],
        "errorMessage": None if error is None else error["message"],
        "createdAt": seconds(job.created_us),
        "updatedAt": seconds(job.updated_us),
        "cancelledAt": cancelled_at(job),
        **issues,
    }


def render_error_file(job: Job) -> dict[str, Any] | None:
    """The error.json of this front end; None for a job that has not failed."""
    if (error := _error_of(job)) is None:
        return None
    return {
        "jobId": prefixed_id(job.job_id),
        "status": "failed",
        "error": error["code"],
        "message": error["message"],
        "timestamp": seconds(job.finished_us),
    }


def _fraction(view: JobView) -> float:
    if view.job.status == Status.COMPLETED:
        return 1.0
    return 0.0 if view.progress is None else round(view.progress.fraction, 4)


def _error_of(job: Job) -> dict[str, str] | None:
    """The code and message of a failed job."""
    if job.status != Status.FAILED or job.error is None:
        return None
    code = job.error["code"]
    of_class = _CODES_OF_CLASSES.get(error_class(code), "processing_error")
    return {"code": _CODES.get(code, of_class), "message": job.error["message"] or code}


def _result_path(job: Job) -> str | None:
    """Where the file of a job that has ended is: its result, or its error.json."""
    if job.status == Status.FAILED:
        return f"/api/results/{prefixed_id(job.job_id)}/error.json"
    if job.status != Status.COMPLETED:
        return None
    if is_large_result(job):
        return f"/v1/jobs/{job.job_id}/artifacts/{RESULT}"
    return f"/api/results/{prefixed_id(job.job_id)}/{RESULT}"


def is_large_result(job: Job) -> bool:
    """Whether the result is an artifact."""
    return any(
        each.name == RESULT and job.result == large_result(each.size) for each in job.artifacts
    )
