"""Jobs that a handler submits while it runs: each once, however often the handler is run."""

from typing import Any

import orjson

from eventjobs.domain.job import Job, Status
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.submission import build_spec
from eventjobs.domain.validation import read_name
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.files import Files


class Children:
    """The children of one job, as one of its attempts submits them."""

    def __init__(self, job: Job, reports: AttemptChannel) -> None:
        self._job = job
        self._reports = reports
        self._unnamed = 0

    async def submit(self, type: str, payload: Any, name: str | None, fields: Any) -> str:
        """The id of the child, which depends on nothing but the parent's and its name."""
        if name is None:
            self._unnamed += 1
            name = f"\0{self._unnamed}"  # no name that anybody would give
        else:
            name = read_name(name, "name")
        return await self._reports.submit_child(name, self._spec(type, payload, fields))

    async def end(self, child_id: str) -> dict[str, Any]:
        """How a job has ended, once it has: as Desk.end_of."""
        return await self._reports.wait_for_job(child_id)

    def _spec(self, type: str, payload: Any, fields: Any) -> JobSpec:
        if "parent" in fields:
            wrong = [{"field": "parent", "message": "it is the job that submits"}]
            raise InvalidInput("the parent of a child cannot be chosen", wrong)
        return build_spec(type, payload, {**fields, "parent": self._job.job_id})


def outcome_of(child_id: str, end: dict[str, Any], files: Files) -> Any:
    """The result of a job that has ended so; blocks for one with a file.

    Raises JobError for a job that is not completed, and `artifact_damaged`.
    """
    if end["status"] == Status.COMPLETED:
        if end["file"] is None:
            return end["result"]
        try:
            return orjson.loads(files.checked(*end["file"]).read_bytes())
        except (ArtifactDamaged, FileNotFoundError) as damaged:
            why = f"the result of the job {child_id}: {damaged}"
            raise JobError("artifact_damaged", why, details={"job_id": child_id}) from damaged
    error = end["error"] or {}
    failed = end["status"] == Status.FAILED
    why = f": {error.get('code')}: {error.get('message') or ''}" if failed else ""
    raise JobError(
        "child_failed" if failed else "child_cancelled",
        f"the job {child_id} {'failed' if failed else 'was cancelled'}{why}",
        retryable=failed and bool(error.get("retryable")),
        details={"job_id": child_id, "error": end["error"]},
    )
