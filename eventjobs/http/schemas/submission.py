"""Bodies of submissions and batches, and their specifications of jobs."""

from typing import Any

from pydantic import Field, model_validator

from eventjobs.auth.principals import Principal
from eventjobs.domain.json_fields import as_fragment
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.submission import SubmissionOptions, mark_checked
from eventjobs.domain.timestamps import microseconds
from eventjobs.domain.validation import (
    ArtifactName,
    Delay,
    JobId,
    Moment,
    Name,
    Sha256,
)
from eventjobs.http.auth import file_owners
from eventjobs.http.request_errors import RequestError
from eventjobs.http.requests import permitted_files
from eventjobs.http.schemas.problem import Problem
from eventjobs.http.schemas.response_model import ResponseModel
from eventjobs.service import Service


class BatchOutcome(ResponseModel):
    """The outcome of one line."""

    line: int = Field(description="counted from 1")
    status: int
    job_id: str | None = None
    position: int | None = None
    error: Problem | None = None


class Submission(SubmissionOptions):
    """A job to submit. The handler of its type sets what is left out."""

    type: str = Field(description="which handler runs it")
    payload: Any = Field(None, description="the argument of the handler")
    run_at: Moment | None = Field(None, description="not before this time")
    delay_s: Delay | None = Field(
        None,
        description="not before so many seconds from now; not for a submission with an id or key",
    )
    owner: Name | None = Field(
        None, description="whose job it is; only an administrator names another owner"
    )
    artifacts: dict[ArtifactName, Sha256] = Field(
        default_factory=dict,
        max_length=32,
        description="uploaded files by name: the sha256 in the answer of the upload",
    )

    @model_validator(mode="after")
    def _one_start(self) -> "Submission":
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        return self

    async def spec(
        self, service: Service, principal: Principal, owner: str | None, *, named: bool
    ) -> JobSpec:
        """The specification of the job of *owner* that *principal* submits.

        Raises UnknownArtifact, ViewsBehind, and RequestError for a delay of a submission that is
        *named* by an id or key.
        """
        run_at_us = None
        if self.run_at is not None:
            run_at_us = microseconds(self.run_at)
        elif self.delay_s is not None:
            if named:
                raise RequestError(
                    "delay_s counts from now, so a repetition would be another job; give run_at"
                )
            run_at_us = service.clock.now_us() + int(self.delay_s * 1e6)
        files: tuple[Artifact, ...] = ()
        if self.artifacts:
            files = await permitted_files(service, self.artifacts, file_owners(principal, owner))
        # *checked* would copy the specification, which costs more than all its checks.
        attempts = 0 if self.max_attempts else service.submissions.defaults.max_attempts(self.type)
        payload = as_fragment(self.payload)
        return mark_checked(self.to_spec(self.type, payload, owner, run_at_us, files, attempts))


class BatchLine(Submission):
    """One line of a batch: a submission, and an id or key that makes it safe to repeat."""

    job_id: JobId | None = Field(None, description="as in PUT /v1/jobs/{id}")
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=255, description="as in the header Idempotency-Key"
    )

    @model_validator(mode="after")
    def _one_name(self) -> "BatchLine":
        if self.job_id is not None and self.idempotency_key is not None:
            raise ValueError("give job_id or idempotency_key, not both")
        return self
