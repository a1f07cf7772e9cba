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


class Kind(NamedTuple):
    """What a code means."""

    belongs: Class
    says: str


CODES: dict[str, Kind] = {
    "outcome_not_recorded": Kind("handler", "the outcome of the attempt could not be recorded"),
    "handler_error": Kind("handler", "the handler raised an error; the details have its traceback"),
    "result_not_json": Kind("handler", "it returned something that JSON cannot hold"),
    "step_not_json": Kind("handler", "a step returned something that JSON cannot hold"),
    "step_too_large": Kind("handler", "a step returned more than EVENTJOBS_RESULT_BYTES_MAX"),
    "too_many_steps": Kind("handler", "a job has at most 1000 steps"),
    "invalid_payload": Kind("input", "the payload does not fit the handler's model any longer"),
    "invalid_input": Kind("input", "the handler gave a name or value that is not allowed"),
    "timeout": Kind("timeout", "an attempt ran longer than timeout_s"),
    "stalled": Kind("timeout", "an attempt told no progress for stall_timeout_s"),
    "artifact_damaged": Kind("artifact", "a stored file is gone, or is not what was stored"),
    "artifact_missing": Kind("artifact", "the handler asked for a file that the job has not"),
    "too_large": Kind(
        "artifact", "a file, or a result, is larger than EVENTJOBS_ARTIFACT_BYTES_MAX"
    ),
    "files_unavailable": Kind("artifact", "a worker elsewhere could not keep the job's files"),
    "worker_lost": Kind("worker", "nothing was heard any more from whoever ran it"),
    "worker_crashed": Kind("worker", "the process that ran it died; the message names the signal"),
    "worker_not_started": Kind("worker", "no process could be started to run it"),
    "worker_shutdown": Kind(
        "worker", 'the service was stopped, and its type says on_shutdown="fail"'
    ),
    "service_unreachable": Kind("dependency", "the external service could not be reached"),
    "service_timeout": Kind("dependency", "the external service did not answer in time"),
    "service_error": Kind("dependency", "the external service answered with an error of its own"),
    "service_refused": Kind("dependency", "the external service does not accept the job"),
    "outbound_refused": Kind("dependency", "its address is none that this service talks to"),
    "outbound_failed": Kind("dependency", "of a webhook: its address could not be reached"),
    "outbound_timeout": Kind("dependency", "of a webhook: its address did not answer in time"),
    "not_accepted": Kind("dependency", "of a webhook: its address answered with an error"),
    "gone": Kind("dependency", "of a webhook: its address answered that nobody is there"),
    "webhook_removed": Kind("dependency", "of a webhook: it was removed meanwhile"),
    "erased": Kind("dependency", "of a webhook: what it was about is erased"),
    "artifact_not_stored": Kind(
        "artifact", "a file could not be written, however often it was tried"
    ),
    "too_many_waiting": Kind(
        "dependency", "as many jobs as may wait for others at once already do"
    ),
    "breaker_open": Kind("dependency", "the circuit breaker of what it calls is open"),
}


def class_of(code: str) -> Class:
    """Where to look first; a code that is none of ours is a handler's own."""
    kind = CODES.get(code)
    return "handler" if kind is None else kind.belongs
