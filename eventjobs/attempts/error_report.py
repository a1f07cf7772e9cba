"""The error report of a failed job: its artifact error.json."""

from typing import Any

import orjson

from eventjobs.domain.error_codes import error_class
from eventjobs.domain.events import AttemptFailed
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339
from eventjobs.projections import history

#: The name of the artifact.
ERROR_ARTIFACT = "error.json"


def error_report(events: list[Recorded], failed: AttemptFailed, at_us: int) -> bytes:
    """The report as JSON. *events* are all of the job's events before *failed*, its last."""
    attempts = history.describe_history(events)["attempts"]
    error = {"code": failed.code, "message": failed.message}
    for attempt in attempts:
        if attempt["attempt"] == failed.attempt:
            attempt |= {"ended_at": rfc3339(at_us), "outcome": "failed", "error": error}
    report: dict[str, Any] = {
        "jobId": events[0].job_id,
        "status": "failed",
        "error": failed.code,
        "class": error_class(failed.code),
        "message": failed.message,
        "retryable": failed.retryable,
        "details": failed.details,
        "attempt": failed.attempt,
        "attempts": [
            {name: attempt[name] for name in ("attempt", "worker", "started_at", "ended_at")}
            | {"outcome": attempt["outcome"], "error": attempt["error"]}
            for attempt in attempts
        ],
        "timestamp": rfc3339(at_us),
    }
    return orjson.dumps(report, option=orjson.OPT_INDENT_2)
