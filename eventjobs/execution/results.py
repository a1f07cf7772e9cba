"""The outcome of a handler from its return value or from the error that it raised."""

import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal, assert_never

from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import (
    Cancelled,
    Failed,
    HandedOver,
    Outcome,
    Succeeded,
    stall_failure,
    timeout_failure,
)
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError, NotJSON
from eventjobs.observability.tracebacks import attribute, summary, trace
from eventjobs.storable import (
    DETAILS_BYTES_MAX,
    bounded_json,
    class_name,
    json_fragment,
    storable_text,
)

#: Longest code of a failure.
CODE_CHARS_MAX = 200


def success(result: Any, issues: Any = None) -> Outcome:
    """The outcome of a handler that returned *result* with *issues*. Never raises."""
    if type(result) is HandedOver:
        return result
    if issubclass(type(result), Coroutine):
        with suppress(BaseException):
            result.close()  # else Python warns that it was never awaited
        return Failed("result_not_json", "the handler returned a coroutine: await it", False)
    try:
        return Succeeded(json_fragment(result), issues)
    except NotJSON as error:
        message = storable_text(f"the result cannot be kept as JSON: {error}")
        return Failed("result_not_json", message, False)


def failure(error: BaseException) -> Failed:
    """The outcome of a handler that raised *error*. Never raises, even for hostile classes."""
    text = trace(error)
    if issubclass(type(error), InvalidInput):  # a bad artifact name, or one too large
        code, details = attribute(error, "code", None), attribute(error, "errors", None)
        return Failed(_code(code), _message(error), False, json_details(details), trace=text)
    if issubclass(type(error), ArtifactDamaged):  # of a result that is a file
        return Failed(ArtifactDamaged.code, _message(error), trace=text)
    if not issubclass(type(error), JobError):
        return Failed("handler_error", summary(error), details={"traceback": text}, trace=text)
    try:
        retryable = bool(attribute(error, "retryable", True))
    except BaseException:  # noqa: BLE001 -- a __bool__ of its own
        retryable = True
    return Failed(
        _code(attribute(error, "error_code", None)),
        _message(error),
        retryable,
        json_details(attribute(error, "details", None)),
        _seconds(attribute(error, "retry_after_s", None)),
        text,
    )


def outcome_of_stop(job: Job, reason: Literal["cancelled", "timeout", "stalled"]) -> Outcome:
    """The outcome of *job*'s attempt, which was stopped for *reason*."""
    match reason:
        case "cancelled":
            return Cancelled()
        case "timeout":
            return timeout_failure(job.spec.timeout_s)
        case "stalled":
            return stall_failure(stall_timeout_s(job))
        case _ as never:
            assert_never(never)


def stall_timeout_s(job: Job) -> float | None:
    """Longest time without progress, seconds. An external service always has a limit."""
    return job.spec.stall_timeout_s if job.silence_s is None else job.silence_s


def _code(code: object) -> str:
    return ("" if code is None else storable_text(code, CODE_CHARS_MAX).strip()) or "handler_error"


def _message(error: BaseException) -> str:
    return storable_text(error) or class_name(type(error))


def json_details(details: Any) -> Any:
    return bounded_json(details, DETAILS_BYTES_MAX, whole=True)


def _seconds(delay_s: Any) -> float | None:
    """A `retry_after_s` as seconds; None unless it is a finite number of at least 0."""
    if delay_s is None or type(delay_s) is bool:
        return None
    try:
        number = float(delay_s)
    except BaseException:  # noqa: BLE001 -- text that is no number, or a __float__ of its own
        return None
    return number if math.isfinite(number) and number >= 0 else None
