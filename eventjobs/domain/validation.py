"""Types of valid input: names, texts, numbers and times. Each limit is written once, here.

HTTP models, submissions from Python, and the options of handlers and schedules use these types.
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

from eventjobs.domain.timestamps import EPOCH, parse_rfc3339
from eventjobs.errors import InvalidInput

SECONDS_MAX = 315_360_000  # ten years: longer than any wait, and far below every overflow
LAST = datetime(9000, 1, 1, tzinfo=UTC)
#: Jobs that one job may wait for.
AFTER_MAX = 100
#: The name of a job's file. It is stored in the log and never used as a path.
ARTIFACT_NAME = r"[A-Za-z0-9][A-Za-z0-9._ ()+-]{0,127}"
QUEUE_NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}"
STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def uuid_text(text: object) -> str:
    """A UUID in lower case with hyphens. Raises ValueError for anything else."""
    if issubclass(type(text), str):
        text = str.__str__(text)
        if match := _UUID.fullmatch(text):
            return match[0]
        digits = text.replace("-", "").lower()
        if len(digits) == 32 and set(digits) <= set("0123456789abcdef"):
            return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    raise ValueError("a job id is a UUID")


def _invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", message)


def _check_job_id(text: str) -> str:
    try:
        return uuid_text(text)
    except ValueError as error:
        raise _invalid(str(error)) from error


def _parse_time(value: object) -> datetime:
    try:
        return _check_range(parse_rfc3339(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise _invalid(str(error)) from error


def _check_aware_time(value: object) -> datetime:
    try:
        if issubclass(type(value), datetime):
            at: datetime = value  # type: ignore[assignment]
            if at.utcoffset() is not None:
                return _check_range(at.astimezone(UTC))
    except OverflowError:
        raise _invalid("a time between 1970 and 9000") from None
    except PydanticCustomError:
        raise
    except Exception:  # noqa: BLE001, S110 -- a tzinfo may run any code
        pass
    raise _invalid("a datetime with its time zone, like datetime.now(UTC)")


def _check_range(at: datetime) -> datetime:
    if not EPOCH + timedelta(days=1) <= at <= LAST:  # a day is more than any UTC offset
        raise _invalid("a time between 1970 and 9000")
    return at


def as_tuple(value: object) -> object:
    """A list as a tuple. Any other value is returned as it is, for pydantic to refuse."""
    # A subclass's own __iter__ may be endless.
    return tuple(list.__iter__(value)) if issubclass(type(value), list) else value  # type: ignore[arg-type]


NAME_CHARS_MAX = 200
#: One line of text without control characters.
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
    str, AfterValidator(_check_job_id), WithJsonSchema({"type": "string", "format": "uuid"})
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
#: A time in JSON: RFC 3339 with an offset. In Python an *AwareTime*: a datetime with a time zone.
Moment = Annotated[
    datetime,
    BeforeValidator(_parse_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
AwareTime = Annotated[datetime, BeforeValidator(_check_aware_time)]


class Subscription(BaseModel):
    """The URL and the filters of a new webhook. An empty filter matches all."""

    model_config = STRICT

    url: str = Field(min_length=1, max_length=2000, description="where messages are POSTed to")
    events: Names = Field(
        (),
        max_length=50,
        description="event types as in the log; empty: those that end a job",
    )
    types: Names = Field((), max_length=100, description="of jobs")
    owner: Name | None = Field(None, description="of jobs")


class Redelivery(BaseModel):
    """Which messages of a webhook are sent again."""

    model_config = STRICT

    after: int = Field(ge=0, le=2**62, description="those of events after this position")
    limit: int = Field(100, ge=1, le=1000, description="messages, at most")


Value = TypeVar("Value")
Model = TypeVar("Model", bound=BaseModel)


def field_errors(error: ValidationError, *under: str) -> list[dict[str, str]]:
    """The errors as [{"field", "message"}], with field names that begin with *under*."""
    return [
        {"field": ".".join(map(str, (*under, *each["loc"]))), "message": each["msg"]}
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def validate(model: type[Model], fields: dict[str, Any], what: str) -> Model:
    """*fields* as *model*. Raises InvalidInput with a message for each field; it begins *what*."""
    return _validate(model.model_validate, fields, what)


def make_reader(kind: Any) -> Callable[[Any, str], Any]:
    """A function of (value, field name) that returns the value as *kind* or raises InvalidInput."""
    validate = TypeAdapter(kind, config=STRICT).validate_python
    return lambda value, field: _validate(validate, value, f"this is no {field}", field)


def _validate(validate: Callable[[Any], Value], value: Any, what: str, *under: str) -> Value:
    try:
        return validate(value)
    except ValidationError as error:
        errors = field_errors(error, *under)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- the value's own methods run in here
        errors = [{"field": field, "message": "it cannot be read"} for field in under]
    message = "; ".join(f"{each['field']}: {each['message']}" for each in errors)
    # Not "from" the error: it holds the values, whose __repr__ may fail.
    raise InvalidInput(f"{what}: {message}" if message else what, errors)


read_name = make_reader(Name)
read_reason = make_reader(Reason | None)
read_artifact_name = make_reader(ArtifactName)
read_media_type = make_reader(MediaType)
read_queue_name = make_reader(QueueName)
read_time = make_reader(AwareTime)
read_part = make_reader(Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")])
read_limit = make_reader(Annotated[int, Field(ge=1, le=2**31)])
read_seconds = make_reader(Seconds)
read_contents = make_reader(Mapping[str, Path | bytes | str])
read_files = make_reader(dict[ArtifactName, Sha256])


def check_name(name: str) -> str:
    """*name*. Raises InvalidInput when it is not valid as the name of a job's file."""
    return str(read_artifact_name(name, "name"))
