"""What may be given: names, texts, numbers and times, each limit written once.

HTTP's models, submissions from Python, options of handlers and schedules are made of these types.
Each is strict: no text for a number, no bool for an integer, no NaN.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from eventjobs.errors import InvalidInput


def check_name(name: str) -> str:
    """Raises InvalidInput for what cannot be the name of a file of a job."""
    return str(read_artifact_name(name, "name"))


SECONDS_MAX = 315_360_000  # ten years: more than any wait, and far from every overflow
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
#: Jobs that one job may wait for.
AFTER_MAX = 100
#: What a client may call a file of a job: kept in the log, never used as a path.
ARTIFACT_NAME = r"[A-Za-z0-9][A-Za-z0-9._ ()+-]{0,127}"
QUEUE_NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}"
STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")


def uuid_text(text: object) -> str:
    """A UUID in its one written form. Raises ValueError for anything else."""
    if issubclass(type(text), str):
        text = str.__str__(text)
        if written := _UUID.fullmatch(text):
            return written[0]
        digits = text.replace("-", "").lower()
        if len(digits) == 32 and set(digits) <= set("0123456789abcdef"):
            return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    raise ValueError("a job id is a UUID")


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", message)


def _job_id(text: str) -> str:
    try:
        return uuid_text(text)
    except ValueError as error:
        raise _wrong(str(error)) from error


def _written_time(value: object) -> datetime:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise _wrong("a time in RFC 3339 with its offset, like 2025-01-31T12:00:00Z")
    try:
        return _in_range(datetime.fromisoformat(value.upper()))
    except ValueError as error:
        raise _wrong(str(error)) from error


def _aware_time(value: object) -> datetime:
    try:
        if issubclass(type(value), datetime):
            at: datetime = value  # type: ignore[assignment]
            if at.utcoffset() is not None:
                return _in_range(at.astimezone(UTC))
    except OverflowError:
        raise _wrong("a time between 1970 and 9000") from None
    except PydanticCustomError:
        raise
    except Exception:  # noqa: BLE001, S110 -- a time zone is anybody's code
        pass
    raise _wrong("a datetime with its time zone, like datetime.now(UTC)")


def _in_range(at: datetime) -> datetime:
    if not EPOCH + timedelta(days=1) <= at <= LAST:  # room for every offset
        raise _wrong("a time between 1970 and 9000")
    return at


def as_tuple(value: object) -> object:
    """No set, whose order changes, and no generator, which can be read once."""
    # And not as a class of its own iterates, which may have no end.
    return tuple(list.__iter__(value)) if issubclass(type(value), list) else value  # type: ignore[arg-type]


NAME_CHARS_MAX = 200
#: One line of text that people read and programs compare.
Name = Annotated[
    str, Field(min_length=1, max_length=NAME_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_tuple)]
Tag = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Tags = Annotated[tuple[Tag, ...], Field(max_length=32), BeforeValidator(as_tuple)]
QueueName = Annotated[str, Field(pattern=f"^(?:{QUEUE_NAME})$")]
ConcurrencyKey = Name
Reason = Annotated[str, Field(max_length=1000)]
ArtifactName = Annotated[str, Field(pattern=f"^(?:{ARTIFACT_NAME})$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MediaType = Annotated[str, Field(max_length=255, pattern=r"^[\w.+-]+/[\w.+-]+(?:\s*;[ -~]*)?$")]
JobId = Annotated[
    str, AfterValidator(_job_id), WithJsonSchema({"type": "string", "format": "uuid"})
]
JobIds = Annotated[
    tuple[JobId, ...],
    Field(max_length=AFTER_MAX),
    BeforeValidator(as_tuple),
    AfterValidator(lambda ids: tuple(dict.fromkeys(ids))),
]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Attempts = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, le=SECONDS_MAX, allow_inf_nan=False)]
#: A time as JSON has it; from Python an *AwareTime*. Neither is ever guessed.
Moment = Annotated[
    datetime,
    BeforeValidator(_written_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
AwareTime = Annotated[datetime, BeforeValidator(_aware_time)]


class Subscription(BaseModel):
    """Who is to be told of what. What is left out does not limit."""

    model_config = STRICT

    url: str = Field(min_length=1, max_length=2000, description="where messages are POSTed to")
    events: Names = Field(
        (),
        max_length=50,
        description="types of events, as in the log; none: those that end a job",
    )
    types: Names = Field((), max_length=100, description="of jobs")
    owner: Name | None = Field(None, description="of jobs")


class Redelivery(BaseModel):
    """Which messages are to be sent again."""

    model_config = STRICT

    after: int = Field(ge=0, le=2**62, description="those of events after this position")
    limit: int = Field(100, ge=1, le=1000, description="messages, at most")


Read = TypeVar("Read")
Model = TypeVar("Model", bound=BaseModel)


def field_errors(error: ValidationError, *under: str) -> list[dict[str, str]]:
    """One {"field", "message"} for each thing that is wrong."""
    return [
        {"field": ".".join(map(str, (*under, *each["loc"]))), "message": each["msg"]}
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def read(model: type[Model], given: dict[str, Any], what: str) -> Model:
    """*given* as *model*. Raises InvalidInput, which says what is wrong with each field."""
    return _read(model.model_validate, given, what)


def reader(kind: Any) -> Callable[[Any, str], Any]:
    """A function of (value, field) that returns the value as *kind*, or raises InvalidInput."""
    validate = TypeAdapter(kind, config=STRICT).validate_python
    return lambda value, field: _read(validate, value, f"this is no {field}", field)


def _read(validate: Callable[[Any], Read], given: Any, what: str, *under: str) -> Read:
    try:
        return validate(given)
    except ValidationError as error:
        wrong = field_errors(error, *under)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- methods of a value run in here
        wrong = [{"field": field, "message": "it cannot be read"} for field in under]
    told = "; ".join(f"{each['field']}: {each['message']}" for each in wrong)
    # Not "from" the error: it holds the values, and may be unable to say what they are.
    raise InvalidInput(f"{what}: {told}" if told else what, wrong)


read_name = reader(Name)
read_reason = reader(Reason | None)
read_artifact_name = reader(ArtifactName)
read_media_type = reader(MediaType)
read_queue_name = reader(QueueName)
read_time = reader(AwareTime)
read_part = reader(Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")])
read_limit = reader(Annotated[int, Field(ge=1, le=2**31)])
read_seconds = reader(Seconds)
read_contents = reader(Mapping[str, Path | bytes | str])
read_files = reader(dict[ArtifactName, Sha256])
