"""A specification out of what Python code says, and the other jobs that it may name."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from eventjobs.errors import InvalidInput, UnknownJob
from eventjobs.events import JobSpec
from eventjobs.jobs import Jobs, parse_id
from eventjobs.plain import plain_json, plain_text

#: Jobs that one job may wait for.
AFTER_MAX = 100
TTL_MAX_S = 315_360_000  # ten years


def spec_of(type: str, payload: Any = None, **fields: Any) -> JobSpec:
    """With *fields* of JobSpec, and `run_at` as a datetime. Raises InvalidInput."""
    try:
        payload = plain_json(payload)
    except (TypeError, ValueError, RecursionError) as error:
        problem = {"field": "payload", "message": plain_text(error)}
        raise InvalidInput("the payload cannot be kept as JSON", [problem]) from error
    run_at: datetime | None = fields.pop("run_at", None)
    if run_at is not None:
        fields["run_at_us"] = int(run_at.timestamp() * 1e6)
    if after := fields.get("after"):
        fields["after"] = job_ids(after, "after")
    if (parent := fields.get("parent")) is not None:
        fields["parent"] = one_id(parent, "parent")
    if fields.get("after_failure") not in (None, "cancel", "run"):
        raise _unfit("after_failure", "it is cancel or run")
    if fields.get("after_failure") == "cancel":
        fields["after_failure"] = None
    return JobSpec(type=type, payload=payload, **fields)


def job_ids(given: Iterable[str], field: str) -> tuple[str, ...]:
    """Each once, in the order given. Raises InvalidInput."""
    ids = tuple(dict.fromkeys(one_id(each, f"{field}.{at}") for at, each in enumerate(given)))
    if len(ids) > AFTER_MAX:
        raise _unfit(field, f"at most {AFTER_MAX} jobs")
    return ids


def one_id(given: str, field: str) -> str:
    """Raises InvalidInput."""
    try:
        return parse_id(given)
    except InvalidInput as error:
        raise _unfit(field, error.message) from error


def check_ttl(ttl_s: float) -> None:
    """Raises InvalidInput; also for what is not a number, and for what never ends."""
    if not 0 <= ttl_s <= TTL_MAX_S:
        raise _unfit("ttl_s", f"it is from 0 to {TTL_MAX_S} seconds")


async def check_named(jobs: Jobs, spec: JobSpec) -> None:
    """Raises UnknownJob when *spec* names a job that is not there; a hidden one is."""
    named = [(f"after.{at}", each) for at, each in enumerate(spec.after)]
    if spec.parent is not None:
        named.append(("parent", spec.parent))
    missing = [
        {"field": field, "message": f"there is no job {job_id}"}
        for field, job_id in named
        if await jobs.load(job_id) is None
    ]
    if missing:
        raise UnknownJob(errors=missing)


def _unfit(field: str, message: str) -> InvalidInput:
    return InvalidInput("the submission does not fit", [{"field": field, "message": message}])
