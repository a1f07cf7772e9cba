"""Child jobs: a job submitted by a handler exists once, however often the handler runs."""

from typing import Any

import orjson

from eventjobs.domain.job import Job, Status
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.submission import build_spec
from eventjobs.domain.validation import read_name
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.files import ArtifactFiles


class Children:
    """The children that one attempt of a job submits."""

    def __init__(self, job: Job, channel: AttemptChannel) -> None:
        self._job = job
        self._channel = channel
        self._unnamed = 0

    async def submit(self, type: str, payload: Any, name: str | None, fields: Any) -> str:
        """Submit a child and return its id, which depends only on the parent's id and *name*.

        Without a name, its number among the unnamed children takes the name's part.
        """
        if name is None:
            self._unnamed += 1
            name = f"\0{self._unnamed}"  # read_name refuses such a name
        else:
            name = read_name(name, "name")
        return await self._channel.submit_child(name, self._spec(type, payload, fields))

    async def wait_until_ended(self, child_id: str) -> dict[str, Any]:
        """Wait for a job; its `status`, `result`, `error` and `file`."""
        return await self._channel.wait_for_job(child_id)

    def _spec(self, type: str, payload: Any, fields: Any) -> JobSpec:
        if "parent" in fields:
            wrong = [{"field": "parent", "message": "it is the job that submits"}]
            raise InvalidInput("the parent of a child cannot be chosen", wrong)
        return build_spec(type, payload, {**fields, "parent": self._job.job_id})


def result_of_child(child_id: str, end: dict[str, Any], files: ArtifactFiles) -> Any:
    """The result of a job from its *end*, as AttemptChannel.wait_for_job returns it.

    Blocks when the result is a file. Raises JobError `child_failed`, `child_cancelled`,
    `artifact_damaged`.
    """
    if end["status"] == Status.COMPLETED:
        if end["file"] is None:
            return end["result"]
        try:
            return orjson.loads(files.checked_path(*end["file"]).read_bytes())
        except (ArtifactDamaged, FileNotFoundError) as damaged:
            message = f"the result of the job {child_id}: {damaged}"
            raise JobError("artifact_damaged", message, details={"job_id": child_id}) from damaged
    error = end["error"] or {}
    failed = end["status"] == Status.FAILED
    cause = f": {error.get('code')}: {error.get('message') or ''}" if failed else ""
    raise JobError(
        "child_failed" if failed else "child_cancelled",
        f"the job {child_id} {'failed' if failed else 'was cancelled'}{cause}",
        retryable=failed and bool(error.get("retryable")),
        details={"job_id": child_id, "error": end["error"]},
    )
