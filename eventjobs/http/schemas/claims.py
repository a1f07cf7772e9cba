"""Bodies of claims by remote workers."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from eventjobs.http.schemas.jobs import Job, JobStep
from eventjobs.http.schemas.reports import UncheckedId, WorkerReport
from eventjobs.http.schemas.response_model import ResponseModel

WAIT_MAX_S = 3_600
LEASE_MAX_S = 86_400


class Limit(BaseModel):
    """A limit: at most *max* jobs of these types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    types: list[str] = Field(max_length=1_000)
    max: int = Field(ge=1, le=1_000)


class Claim(WorkerReport):
    types: list[str] = Field(max_length=1_000, description="the types of jobs that it runs")
    max: int = Field(1, ge=1, le=1_000, description="the number of jobs that it can run now")
    limits: list[Limit] = Field(
        default_factory=list, max_length=100, description="further limits for some of the types"
    )
    children_only: list[str] = Field(
        default_factory=list,
        max_length=1_000,
        description="of these types it claims only jobs that have a parent",
    )
    wait_s: float = Field(
        0,
        ge=0,
        le=WAIT_MAX_S,
        description="how long to wait for the first job; the service has a maximum",
    )
    lease_s: float | None = Field(
        None,
        ge=1,
        le=LEASE_MAX_S,
        description="its jobs are lost after so many seconds without a report",
    )
    holds: list[UncheckedId] | None = Field(
        None,
        max_length=10_000,
        description="the jobs it runs; other jobs that it has claimed are answered again",
    )


class StepDone(JobStep):
    result: Any


class ClaimedJob(Job):
    """A claimed job."""

    lease_s: float = Field(
        description="seconds without a report or heartbeat after which the attempt is lost"
    )
    steps: Sequence[StepDone] = Field(
        description="completed steps of earlier attempts, which are not repeated"
    )
    sensitive: Sequence[str] = Field(
        description="names of fields whose values the worker keeps out of its own log"
    )


class Claimed(ResponseModel):
    jobs: list[ClaimedJob]
