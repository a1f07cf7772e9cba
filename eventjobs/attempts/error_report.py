"""What a failed job leaves behind for those who have to find out why: its error.json."""

from typing import Any

import orjson

from eventjobs.domain.error_codes import error_class
from eventjobs.domain.events import AttemptFailed
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339
from eventjobs.projections import history

#: The artifact of a failed job that tells everything about it.
ERROR_ARTIFACT = "error.json"


def error_report(events: list[Recorded], failed: AttemptFailed, at_us: int) -> bytes:
    """*events* are all of the job's, before it *failed* for good."""
    attempts = history.describe_history(events)["attempts"]
    last = {"code": failed.code, "message": failed.message}
    for each in attempts:
        if each["attempt"] == failed.attempt:
            each |= {"ended_at": rfc3339(at_us), "outcome": "failed", "error": last}
    told: dict[str, Any] = {
        "jobId": events[0].job_id,
        "status": "failed",
        "error": failed.code,
        "class": error_class(failed.code),
        "message": failed.message,
        "retryable": failed.retryable,
        "details": failed.details,
        "attempt": failed.attempt,
        "attempts": [
            {name: each[name] for name in ("attempt", "worker", "started_at", "ended_at")}
            | {"outcome": each["outcome"], "error": each["error"]}
            for each in attempts
        ],
        "timestamp": rfc3339(at_us),
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2)
