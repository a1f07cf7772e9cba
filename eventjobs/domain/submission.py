"""The fields of a submission, over HTTP and from Python, and the JobSpec built from them."""

import builtins
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.timestamps import microseconds
from eventjobs.domain.validation import (
    LAST,
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
    validate,
)
from eventjobs.errors import InvalidInput, NotJSON
from eventjobs.storable import json_fragment

_WHAT = "the submission does not fit"


class SubmissionOptions(BaseModel):
    """The fields that a submission has under the same names over HTTP and in Python."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tags: Tags = Field((), description="labels to find the job by")
    priority: Priority = Field(0, description="higher starts sooner")
    max_attempts: Attempts | None = None
    timeout_s: Seconds | None = Field(None, description="longest run of one attempt")
    stall_timeout_s: Seconds | None = Field(None, description="longest time without progress")
    retry_delay_s: Delay | None = Field(
        None, description="delay before the second attempt; doubled for each later one"
    )
    queue: QueueName | None = Field(None, description="the queue it waits in")
    concurrency_key: ConcurrencyKey | None = Field(
        None, description="jobs with the same key run one at a time, unless the handler allows more"
    )
    ttl_s: Delay | None = Field(None, description="time from its end until it is hidden")
    after: JobIds = Field((), description="jobs that have to be completed before this one starts")
    after_failure: Literal["cancel", "run"] = Field(
        "cancel", description="if one of those fails or is cancelled: cancel this job, or run it"
    )
    parent: JobId | None = Field(
        None, description="the job that this one is a child of, and is cancelled with"
    )

    def to_spec(
        self,
        type: str,
        payload: orjson.Fragment | None,
        owner: str | None,
        run_at_us: int | None,
        artifacts: tuple[Artifact, ...],
        max_attempts: int,
    ) -> JobSpec:
        """The specification. *max_attempts* applies when the submission has none."""
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


class _ArtifactFields(BaseModel):
    model_config = ConfigDict(from_attributes=True, strict=True)

    name: ArtifactName
    sha256: Sha256
    size: int = Field(ge=0, le=2**62)
    media_type: MediaType


def _check_artifacts(value: object) -> object:
    files = as_tuple(value)
    if type(files) is not tuple or not all(type(each) is Artifact for each in files):
        raise ValueError("a list of Artifacts, as Submissions.artifacts_of returns them")
    return files


def _check_distinct(files: tuple[_ArtifactFields, ...]) -> tuple[_ArtifactFields, ...]:
    if len({each.name for each in files}) < len(files):
        raise ValueError("two have one name")
    return files


class SpecFields(SubmissionOptions):
    """The fields of a submission from Python: those of JobSpec, and `run_at` as a datetime."""

    model_config = STRICT

    owner: Name | None = None
    run_at: AwareTime | None = None
    run_at_us: int | None = Field(None, ge=0, le=microseconds(LAST))
    artifacts: Annotated[
        tuple[_ArtifactFields, ...],
        Field(max_length=32),
        BeforeValidator(_check_artifacts),
        AfterValidator(_check_distinct),
    ] = ()

    @model_validator(mode="after")
    def _one_start(self) -> "SpecFields":
        if self.run_at is not None and self.run_at_us is not None:
            raise ValueError("give run_at or run_at_us, not both")
        return self

    @property
    def start_us(self) -> int | None:
        return self.run_at_us if self.run_at is None else microseconds(self.run_at)


_DEFAULTS = {each.name: each.default for each in fields(JobSpec)}
_NO_FIELDS = SpecFields()


def build_spec(
    type: str, payload: Any, options: Mapping[str, Any], *, max_attempts: int = 0
) -> JobSpec:
    """The specification from Python values. An option that is None counts as absent.

    Raises InvalidInput, whose `errors` name the fields; NotJSON for the payload.
    """
    if not issubclass(builtins.type(type), str):
        raise _invalid("type", "it is a string")
    try:
        text = json_fragment(payload)
    except NotJSON as error:
        wrong = [{"field": "payload", "message": error.message}]
        raise NotJSON(f"the payload cannot be kept: {error.message}", wrong) from None
    present = {name: value for name, value in options.items() if value is not None}
    valid = validate(SpecFields, present, _WHAT) if present else _NO_FIELDS
    files = tuple(Artifact(*vars(each).values()) for each in valid.artifacts)
    spec = valid.to_spec(str.__str__(type), text, valid.owner, valid.start_us, files, max_attempts)
    return spec if files else mark_checked(spec)  # files may be missing from the store


def rebuild_spec(spec: JobSpec) -> JobSpec:
    """*spec*, built by a caller, validated and built anew by build_spec. Raises InvalidInput."""
    if type(spec) is not JobSpec:
        raise _invalid("spec", "it is a JobSpec")
    try:
        values = {name: getattr(spec, name) for name in _DEFAULTS}
    except ValueError as error:  # its payload is a Fragment that is not JSON
        raise _invalid("payload", str(error)) from None
    options = {name: value for name, value in values.items() if value is not _DEFAULTS[name]}
    for declared in ("sensitive", "hooks"):  # the service's declarations count
        options.pop(declared, None)
    return build_spec(options.pop("type", None), options.pop("payload", None), options)


#: An attribute beside the fields: this object, which cannot change, was checked.
_MARK = "_checked"


def mark_checked(spec: JobSpec) -> JobSpec:
    """Mark that *spec* is valid and that its files are stored. Returns it."""
    vars(spec)[_MARK] = True
    return spec


def is_checked(spec: JobSpec) -> bool:
    """Whether *spec* was marked as checked. A copy with changes is not."""
    return type(spec) is JobSpec and _MARK in vars(spec)


def _invalid(field: str, message: str) -> InvalidInput:
    return InvalidInput(f"{_WHAT}: {field}: {message}", [{"field": field, "message": message}])
