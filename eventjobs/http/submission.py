"""What a submission may say, and the specification it becomes."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from eventjobs.artifacts import NAME
from eventjobs.events import JobSpec
from eventjobs.flow import KEY_CHARS_MAX, QUEUE
from eventjobs.http.problem import RequestError
from eventjobs.plain import as_text
from eventjobs.service import Service
from eventjobs.specs import AFTER_MAX, job_ids, one_id

#: Where the ids made from idempotency keys live.
KEYS = UUID("5d0f6f6c-6a3f-5a55-9d5b-3c1c0f1f7a10")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)
SECONDS_MAX = 315_360_000  # ten years: more than any wait, and far from every overflow

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def _moment(value: object) -> datetime:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("a time in RFC 3339 with its offset, like 2025-01-31T12:00:00Z")
    at = datetime.fromisoformat(value.upper())
    if not EPOCH + timedelta(days=1) <= at <= LAST:  # room for every offset
        raise ValueError("a time between 1970 and 9000")
    return at


Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]
Tag = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
QueueName = Annotated[str, Field(pattern=f"^(?:{QUEUE.pattern})$")]
ConcurrencyKey = Annotated[
    str, Field(min_length=1, max_length=KEY_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX)]
ArtifactName = Annotated[str, Field(pattern=f"^(?:{NAME.pattern})$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
JobId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]


class Submission(BaseModel):
    """A job to be done. What is left out is as the handler of its type says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: str = Field(description="which handler does it")
    payload: Any = Field(None, description="what the handler is given")
    tags: list[Tag] = Field(default_factory=list, max_length=32, description="to find it by")
    priority: int = Field(0, ge=-1000, le=1000, description="higher is sooner")
    run_at: Moment | None = Field(None, description="not before this time")
    delay_s: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = Field(
        None, description="not before so many seconds from now; not for a submission with an id"
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: Seconds | None = Field(None, description="longest run of one attempt")
    stall_timeout_s: Seconds | None = Field(None, description="longest time without progress")
    retry_delay_s: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = Field(
        None, description="before the second attempt; doubled for each later one"
    )
    queue: QueueName | None = Field(None, description="what it waits in")
    concurrency_key: ConcurrencyKey | None = Field(
        None, description="of jobs with the same, only one runs at once, unless the handler says"
    )
    ttl_s: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = Field(
        None, description="hidden so long after its end"
    )
    after: list[JobId] = Field(
        default_factory=list,
        max_length=AFTER_MAX,
        description="jobs that have to be completed before this one starts",
    )
    after_failure: Literal["cancel", "run"] = Field(
        "cancel", description="when one of those fails or is cancelled; run: start all the same"
    )
    parent: JobId | None = Field(
        None, description="the job that this one is a part of, and is cancelled with"
    )
    artifacts: dict[ArtifactName, Sha256] = Field(
        default_factory=dict,
        max_length=32,
        description="uploaded files by name: the sha256 that the upload answered",
    )

    @model_validator(mode="after")
    def _one_start(self) -> "Submission":
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        return self

    async def spec(self, service: Service, *, named: bool) -> JobSpec:
        """As a specification. Raises UnknownArtifact, and RequestError for a *named* delay."""
        run_at_us = None
        if self.run_at is not None:
            run_at_us = (self.run_at - EPOCH) // timedelta(microseconds=1)
        elif self.delay_s is not None:
            if named:
                raise RequestError(
                    "delay_s counts from now, so a repetition would be another job; give run_at"
                )
            run_at_us = service.clock.now_us() + int(self.delay_s * 1e6)
        return JobSpec(
            self.type,
            as_text(self.payload),
            tuple(self.tags),
            None,
            self.priority,
            run_at_us,
            # Here and not by *checked*: copying a specification costs more than all its checks.
            self.max_attempts or service.attempts(self.type),
            self.timeout_s,
            self.stall_timeout_s,
            self.retry_delay_s,
            await service.attached(self.artifacts) if self.artifacts else (),
            self.queue,
            self.concurrency_key,
            self.ttl_s,
            job_ids(self.after, "after") if self.after else (),
            "run" if self.after and self.after_failure == "run" else None,
            self.parent and one_id(self.parent, "parent"),
        )


class Line(Submission):
    """One line of a batch: a submission, and the id or key that makes repeating it harmless."""

    job_id: JobId | None = Field(None, description="as in PUT /v1/jobs/{id}")
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=255, description="as in the header Idempotency-Key"
    )

    @model_validator(mode="after")
    def _one_name(self) -> "Line":
        if self.job_id is not None and self.idempotency_key is not None:
            raise ValueError("give job_id or idempotency_key, not both")
        return self


class Why(BaseModel):
    """Why somebody intervenes; told in the job's history."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str | None = Field(None, max_length=1000)


class Again(Why):
    """How a job is to run again. Without more, its completed steps are not repeated."""

    from_step: str | None = Field(
        None, max_length=300, description="repeat this completed step, and those after it"
    )
    restart: bool = Field(False, description="repeat all steps")

    @model_validator(mode="after")
    def _one_way(self) -> "Again":
        if self.from_step is not None and self.restart:
            raise ValueError("give from_step or restart, not both")
        return self


def id_of_key(key: str, owner: str = "") -> str:
    """The job id that an idempotency key stands for: no table of keys is needed."""
    return str(uuid5(KEYS, f"{owner}\0{key}"))


def idempotency_key(values: list[str]) -> str | None:
    """From the header: a quoted string, as the draft has it, or bare. Raises RequestError."""
    if not values:
        return None
    text = values[0].strip()
    if quoted := _QUOTED.fullmatch(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    if len(values) > 1 or not 1 <= len(text) <= 255 or not (text.isascii() and text.isprintable()):
        raise RequestError("Idempotency-Key is one string of 1 to 255 printable ASCII characters")
    return text
