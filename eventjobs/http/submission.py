"""What a submission may say, and the specification it becomes."""

import re
from typing import Any
from uuid import UUID, uuid5

from pydantic import Field, model_validator

from eventjobs.events import JobSpec
from eventjobs.http.problem import RequestError
from eventjobs.plain import as_text
from eventjobs.service import Service
from eventjobs.specs import Options, mark_checked
from eventjobs.values import (
    EPOCH,
    MICROSECOND,
    ArtifactName,
    Delay,
    JobId,
    Moment,
    Sha256,
)

#: Where the ids made from idempotency keys live.
KEYS = UUID("5d0f6f6c-6a3f-5a55-9d5b-3c1c0f1f7a10")

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


class Submission(Options):
    """A job to be done. What is left out is as the handler of its type says."""

    type: str = Field(description="which handler does it")
    payload: Any = Field(None, description="what the handler is given")
    run_at: Moment | None = Field(None, description="not before this time")
    delay_s: Delay | None = Field(
        None, description="not before so many seconds from now; not for a submission with an id"
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
            run_at_us = (self.run_at - EPOCH) // MICROSECOND
        elif self.delay_s is not None:
            if named:
                raise RequestError(
                    "delay_s counts from now, so a repetition would be another job; give run_at"
                )
            run_at_us = service.clock.now_us() + int(self.delay_s * 1e6)
        files = await service.attached(self.artifacts) if self.artifacts else ()
        # Here and not by *checked*: copying a specification costs more than all its checks.
        attempts = 0 if self.max_attempts else service.attempts(self.type)
        payload = as_text(self.payload)
        return mark_checked(self.made(self.type, payload, None, run_at_us, files, attempts))


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
    elif text.startswith('"'):
        text = ""  # half a string, or more than one: which key that is, is anyone's guess
    if len(values) > 1 or not 1 <= len(text) <= 255 or not (text.isascii() and text.isprintable()):
        raise RequestError("Idempotency-Key is one string of 1 to 255 printable ASCII characters")
    return text
