"""Why jobs fail: every code of our own, its class, and what it means. Others are a handler's own.

A class says where to look first. Who moves a code to another class makes the views of `status`
anew, by its VERSION: the class is a part of what is kept there.
"""

from typing import Literal, NamedTuple

Class = Literal["handler", "input", "timeout", "artifact", "worker", "dependency"]

#: What a class is about.
CLASSES: dict[Class, str] = {
    "handler": "the handler's own doing: a code that it raised, an error, or a result that is none",
    "input": "what was submitted; trying again would not change it",
    "timeout": "a limit in time was passed",
    "artifact": "a file that is missing, too large, or could not be written",
    "worker": "whoever ran the job is gone; the job itself may be fine",
    "dependency": "something outside, or another job, that this one needs",
}


class ErrorCode(NamedTuple):
    """What a code means."""

    belongs: Class
    says: str


ERROR_CODES: dict[str, ErrorCode] = {
    "outcome_not_recorded": ErrorCode(
        "handler", "the outcome of the attempt could not be recorded"
    ),
    "handler_error": ErrorCode(
        "handler", "the handler raised an error; the details have its traceback"
    ),
    "result_not_json": ErrorCode("handler", "it returned something that JSON cannot hold"),
    "step_not_json": ErrorCode("handler", "a step returned something that JSON cannot hold"),
    "step_too_large": ErrorCode("handler", "a step returned more than EVENTJOBS_RESULT_BYTES_MAX"),
    "too_many_steps": ErrorCode("handler", "a job has at most 1000 steps"),
    "invalid_payload": ErrorCode(
        "input", "the payload does not fit the handler's model any longer"
    ),
    "invalid_input": ErrorCode("input", "the handler gave a name or value that is not allowed"),
    "timeout": ErrorCode("timeout", "an attempt ran longer than timeout_s"),
    "stalled": ErrorCode("timeout", "an attempt told no progress for stall_timeout_s"),
    "artifact_damaged": ErrorCode("artifact", "a stored file is gone, or is not what was stored"),
    "artifact_missing": ErrorCode("artifact", "the handler asked for a file that the job has not"),
    "too_large": ErrorCode(
        "artifact", "a file, or a result, is larger than EVENTJOBS_ARTIFACT_BYTES_MAX"
    ),
    "files_unavailable": ErrorCode("artifact", "a worker elsewhere could not keep the job's files"),
    "worker_lost": ErrorCode("worker", "nothing was heard any more from whoever ran it"),
    "worker_crashed": ErrorCode(
        "worker", "the process that ran it died; the message names the signal"
    ),
    "worker_not_started": ErrorCode("worker", "no process could be started to run it"),
    "worker_shutdown": ErrorCode(
        "worker", 'the service was stopped, and its type says on_shutdown="fail"'
    ),
    "service_unreachable": ErrorCode("dependency", "the external service could not be reached"),
    "service_timeout": ErrorCode("dependency", "the external service did not answer in time"),
    "service_error": ErrorCode(
        "dependency", "the external service answered with an error of its own"
    ),
    "service_refused": ErrorCode("dependency", "the external service does not accept the job"),
    "outbound_refused": ErrorCode("dependency", "its address is none that this service talks to"),
    "outbound_failed": ErrorCode("dependency", "of a webhook: its address could not be reached"),
    "outbound_timeout": ErrorCode("dependency", "of a webhook: its address did not answer in time"),
    "not_accepted": ErrorCode("dependency", "of a webhook: its address answered with an error"),
    "gone": ErrorCode("dependency", "of a webhook: its address answered that nobody is there"),
    "webhook_removed": ErrorCode("dependency", "of a webhook: it was removed meanwhile"),
    "erased": ErrorCode("dependency", "of a webhook: what it was about is erased"),
    "artifact_not_stored": ErrorCode(
        "artifact", "a file could not be written, however often it was tried"
    ),
    "too_many_waiting": ErrorCode(
        "dependency", "as many jobs as may wait for others at once already do"
    ),
    "breaker_open": ErrorCode("dependency", "the circuit breaker of what it calls is open"),
}


def error_class(code: str) -> Class:
    """Where to look first; a code that is none of ours is a handler's own."""
    kind = ERROR_CODES.get(code)
    return "handler" if kind is None else kind.belongs
