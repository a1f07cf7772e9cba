"""The error codes of eventjobs, with their classes and descriptions. Other codes are a handler's.

A class names where to look first. The class is stored in the view `status`: a change of a code's
class needs a new VERSION there, so that the view is rebuilt.
"""

from typing import Literal, NamedTuple

Class = Literal["handler", "input", "timeout", "artifact", "worker", "dependency"]

#: The description of each class.
CLASSES: dict[Class, str] = {
    "handler": "the handler raised an error, or returned something that is not a result",
    "input": "the submission; another attempt would not change it",
    "timeout": "a time limit passed",
    "artifact": "a file that is missing, too large, or could not be written",
    "worker": "the process that ran the job is gone; the job itself may be fine",
    "dependency": "another service, or another job, that this one needs",
}


class ErrorCode(NamedTuple):
    """The class of a code, and its description for people."""

    error_class: Class
    description: str


ERROR_CODES: dict[str, ErrorCode] = {
    "outcome_not_recorded": ErrorCode(
        "handler", "the outcome of the attempt could not be recorded"
    ),
    "handler_error": ErrorCode(
        "handler", "the handler raised an error; the details have its traceback"
    ),
    "result_not_json": ErrorCode("handler", "the handler returned something that JSON cannot hold"),
    "step_not_json": ErrorCode("handler", "a step returned something that JSON cannot hold"),
    "bad_hook_result": ErrorCode(
        "handler", "a completion hook returned something that names no record"
    ),
    "step_too_large": ErrorCode("handler", "a step returned more than EVENTJOBS_RESULT_BYTES_MAX"),
    "too_many_steps": ErrorCode("handler", "a job has at most 1000 steps"),
    "invalid_payload": ErrorCode("input", "the payload no longer fits the handler's model"),
    "invalid_input": ErrorCode("input", "the handler gave a name or value that is not allowed"),
    "timeout": ErrorCode("timeout", "an attempt ran longer than timeout_s"),
    "stalled": ErrorCode("timeout", "an attempt reported no progress for stall_timeout_s"),
    "artifact_damaged": ErrorCode("artifact", "a stored file is gone, or is not what was stored"),
    "artifact_missing": ErrorCode("artifact", "the handler read a file that the job does not have"),
    "too_large": ErrorCode(
        "artifact", "a file, or a result, is larger than EVENTJOBS_ARTIFACT_BYTES_MAX"
    ),
    "files_unavailable": ErrorCode("artifact", "a remote worker could not store the job's files"),
    "worker_lost": ErrorCode("worker", "the lease of the worker expired"),
    "worker_crashed": ErrorCode(
        "worker", "the process that ran it died; the message names the signal"
    ),
    "worker_not_started": ErrorCode("worker", "no process could be started to run it"),
    "worker_shutdown": ErrorCode(
        "worker", "the service or worker was stopped, and jobs of this type fail then"
    ),
    "service_unreachable": ErrorCode("dependency", "the external service could not be reached"),
    "service_timeout": ErrorCode("dependency", "the external service did not answer in time"),
    "failed_elsewhere": ErrorCode(
        "dependency", "the job was imported; the program that ran it recorded the failure"
    ),
    "service_error": ErrorCode(
        "dependency", "the external service answered with an error of its own"
    ),
    "service_refused": ErrorCode("dependency", "the external service does not accept the job"),
    "outbound_refused": ErrorCode("dependency", "this service sends no requests to that address"),
    "outbound_failed": ErrorCode("dependency", "of a webhook: its address could not be reached"),
    "outbound_timeout": ErrorCode("dependency", "of a webhook: its address did not answer in time"),
    "not_accepted": ErrorCode("dependency", "of a webhook: its address answered with an error"),
    "gone": ErrorCode("dependency", "of a webhook: its address answered 410 Gone"),
    "webhook_removed": ErrorCode("dependency", "of a webhook: it was removed before the delivery"),
    "erased": ErrorCode(
        "dependency", "of a webhook or a completion hook: what it is about is erased"
    ),
    "artifact_not_stored": ErrorCode("artifact", "a file could not be written in several tries"),
    "too_many_waiting": ErrorCode(
        "dependency", "the number of jobs that wait for other jobs is at its limit"
    ),
    "breaker_open": ErrorCode(
        "dependency", "the circuit breaker of the service that it calls is open"
    ),
}


def error_class(code: str) -> Class:
    """The class of *code*; "handler" for a code of a handler."""
    error_code = ERROR_CODES.get(code)
    return "handler" if error_code is None else error_code.error_class
