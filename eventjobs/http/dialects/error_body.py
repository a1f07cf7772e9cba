"""Errors in the words of the dialects: one body with the fields that each of them reads."""

from typing import Any

from eventjobs.domain.job import Job, Status
from eventjobs.domain.timestamps import naive

#: What dialects say where the service has another code, or another status.
_TEXTS = {"job_not_found": "Job not found", "job_gone": "Job not found"}


def as_dialect_error(problem: dict[str, Any], now_us: int) -> tuple[int, dict[str, Any]]:
    """The status and the body for *problem*. A hidden job is not found: dialects have no 410."""
    text = _TEXTS.get(problem["code"], problem["detail"])
    status = 404 if problem["code"] == "job_gone" else problem["status"]
    body = {
        "error": text,
        "detail": text,
        "code": "job_not_found" if status == 404 else problem["code"],
        "timestamp": naive(now_us),
        "path": problem["instance"],
        "request_id": problem["request_id"],
    }
    if "errors" in problem:  # the fields that do not fit
        body["errors"] = problem["errors"]
    return status, body


def error_text(job: Job) -> str | None:
    """Why the job has failed, for people; None for a job that has not."""
    if job.status == Status.CANCELLED:
        return "Job was cancelled"
    if job.status == Status.FAILED and job.error is not None:
        return str(job.error["message"] or job.error["code"])
    return None
