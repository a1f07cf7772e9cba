"""What a submission may say, wherever it comes from, and the specification that it becomes."""

import builtins
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.validation import (
    EPOCH,
    LAST,
    MICROSECOND,
    STRICT,
    ArtifactName,
    Attempts,
    AwareTime,
    ConcurrencyKey,
    Delay,
    JobId,
    JobIds,
    MediaType,
    Name,
    Priority,
    QueueName,
    Seconds,
    Sha256,
    Tags,
    as_tuple,
    read,
)
from eventjobs.errors import InvalidInput, NotJSON
from eventjobs.storable import json_text

_WHAT = "the submission does not fit"


class Options(BaseModel):
    """What a submission may say in the same words over HTTP and in Python."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tags: Tags = Field((), description="to find it by")
    priority: Priority = Field(0, description="higher is sooner")
    max_attempts: Attempts | None = None
    timeout_s: Seconds | None = Field(None, description="longest run of one attempt")
    stall_timeout_s: Seconds | None = Field(None, description="longest time without progress")
    retry_delay_s: Delay | None = Field(
        None, description="before the second attempt; doubled for each later one"
    )
    queue: QueueName | None = Field(None, description="what it waits in")
    concurrency_key: ConcurrencyKey | None = Field(
        None, description="of jobs with the same, only one runs at once, unless the handler says"
    )
    ttl_s: Delay | None = Field(None, description="hidden so long after its end")
    after: JobIds = Field((), description="jobs that have to be completed before this one starts")
    after_failure: Literal["cancel", "run"] = Field(
        "cancel", description="when one of those fails or is cancelled; run: start all the same"
    )
    parent: JobId | None = Field(
        None, description="the job that this one is a part of, and is cancelled with"
    )

    def made(
        self,
        type: str,
        payload: orjson.Fragment | None,
        owner: str | None,
        run_at_us: int | None,
        artifacts: tuple[Artifact, ...],
        max_attempts: int,
    ) -> JobSpec:
        """The specification; *max_attempts* if it does not say."""
        return JobSpec(
            type,
            payload,
            self.tags,
            owner,
            self.priority,
            run_at_us,
            self.max_attempts or max_attempts,
            self.timeout_s,
            self.stall_timeout_s,
            self.retry_delay_s,
            artifacts,
            self.queue,
            self.concurrency_key,
            self.ttl_s,
            self.after,
            "run" if self.after and self.after_failure == "run" else None,
            self.parent,
        )


class _File(BaseModel):
    model_config = ConfigDict(from_attributes=True, strict=True)

    name: ArtifactName
    sha256: Sha256
    size: int = Field(ge=0, le=2**62)
    media_type: MediaType


def _files(given: object) -> object:
    files = as_tuple(given)
    if type(files) is not tuple or not all(type(each) is Artifact for each in files):
        raise ValueError("a list of Artifacts, as Service.attached makes them")
    return files


def _distinct(files: tuple[_File, ...]) -> tuple[_File, ...]:
    if len({each.name for each in files}) < len(files):
        raise ValueError("two have one name")
    return files


class Fields(Options):
    """What only Python code says: fields of JobSpec, and `run_at` as a datetime."""

    model_config = STRICT

    owner: Name | None = None
    run_at: AwareTime | None = None
    run_at_us: int | None = Field(None, ge=0, le=(LAST - EPOCH) // MICROSECOND)
    artifacts: Annotated[
        tuple[_File, ...],
        Field(max_length=32),
        BeforeValidator(_files),
        AfterValidator(_distinct),
    ] = ()

    @model_validator(mode="after")
    def _one_start(self) -> "Fields":
        if self.run_at is not None and self.run_at_us is not None:
            raise ValueError("give run_at or run_at_us, not both")
        return self

    @property
    def start_us(self) -> int | None:
        return self.run_at_us if self.run_at is None else (self.run_at - EPOCH) // MICROSECOND


_DEFAULTS = {each.name: each.default for each in fields(JobSpec)}
_NOTHING_SAID = Fields()


def build_spec(
    type: str, payload: Any, said: Mapping[str, Any], *, max_attempts: int = 0
) -> JobSpec:
    """From Python code; what is None is not said. Raises InvalidInput naming the fields."""
    if not issubclass(builtins.type(type), str):
        raise _unfit("type", "it is a string")
    try:
        text = json_text(payload)
    except NotJSON as error:
        wrong = [{"field": "payload", "message": error.message}]
        raise NotJSON(f"the payload cannot be kept: {error.message}", wrong) from None
    said = {name: value for name, value in said.items() if value is not None}
    given = read(Fields, said, _WHAT) if said else _NOTHING_SAID
    files = tuple(Artifact(*vars(each).values()) for each in given.artifacts)
    spec = given.made(str.__str__(type), text, given.owner, given.start_us, files, max_attempts)
    return spec if files else mark_checked(spec)  # whether files are here is not known yet


def checked(spec: JobSpec) -> JobSpec:
    """*spec*, which anybody may have made, as *spec_of* makes it. Raises InvalidInput."""
    if type(spec) is not JobSpec:
        raise _unfit("spec", "it is a JobSpec")
    try:
        given = {name: getattr(spec, name) for name in _DEFAULTS}
    except ValueError as error:  # its payload was made of text that is no JSON
        raise _unfit("payload", str(error)) from None
    said = {name: value for name, value in given.items() if value is not _DEFAULTS[name]}
    return build_spec(said.pop("type", None), said.pop("payload", None), said)


#: Beside the fields of a specification, which cannot change: it need not be checked again.
_MARK = "_checked"


def mark_checked(spec: JobSpec) -> JobSpec:
    """*spec* holds what *Options* and *Fields* allow, and its files are here."""
    vars(spec)[_MARK] = True
    return spec


def is_checked(spec: JobSpec) -> bool:
    """Whether it was marked; a copy with changes is not."""
    return type(spec) is JobSpec and _MARK in vars(spec)


def _unfit(field: str, message: str) -> InvalidInput:
    return InvalidInput(f"{_WHAT}: {field}: {message}", [{"field": field, "message": message}])
