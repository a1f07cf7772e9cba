"""The JSON of the worker protocol (docs/workers.md): claims, claimed jobs, reports, outcomes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, assert_never
from urllib.parse import parse_qsl, urlencode

from eventjobs.domain.decisions import Report
from eventjobs.domain.events import (
    ArtifactStored,
    BreakerChanged,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.domain.ids import child_id, parse_id
from eventjobs.domain.job import Job, Status
from eventjobs.domain.outcomes import (
    AttemptHolder,
    Cancelled,
    Failed,
    HandedOver,
    Outcome,
    Released,
    Succeeded,
)
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.timestamps import microseconds, parse_rfc3339, rfc3339
from eventjobs.errors import InvalidInput, ReservedId
from eventjobs.execution.source import Capacity

#: The request header of a worker that submits a child of a job that it holds.
CHILD_HEADER = "Eventjobs-Child"
_SPEC_FIELDS = tuple(field.name for field in fields(JobSpec))
#: A completed job, and the body of its completion.
JobResult = tuple[Job, dict[str, Any]]


@dataclass(frozen=True)
class ClaimedJob:
    """A claimed job. *steps* are the results of steps of earlier attempts, by name and in order."""

    job: Job
    lease_s: float
    steps: dict[str, Any]


def claim_body(capacities: Sequence[Capacity], limit: int) -> dict[str, Any]:
    """The body of a claim of up to *limit* jobs within *capacities*."""
    body: dict[str, Any] = {
        "types": [type for capacity in capacities for type in capacity.types],
        "max": limit,
        "limits": [
            {"types": list(capacity.types), "max": capacity.free}
            for capacity in capacities
            if capacity.free < limit
        ],
    }
    if types := [type for capacity in capacities for type in capacity.children_only]:
        body["children_only"] = types  # left out without any: an older service refuses the field
    return body


def parse_claimed_job(body: dict[str, Any]) -> ClaimedJob:
    """A job as the service returns it for a claim."""
    steps = {step["name"]: step["result"] for step in body["steps"]}
    return ClaimedJob(_parse_job(body), body["lease_s"], steps)


def submission_body(spec: JobSpec) -> dict[str, Any]:
    """*spec* as the body of a submission over HTTP."""
    body = {name: value for name, value in asdict(spec).items() if value not in (None, ())}
    if not spec.max_attempts:
        del body["max_attempts"]
    if (run_at_us := body.pop("run_at_us", None)) is not None:
        body["run_at"] = rfc3339(run_at_us)
    if spec.artifacts:
        body["artifacts"] = {artifact.name: artifact.sha256 for artifact in spec.artifacts}
    return body | {"payload": spec.payload}


def child_request(worker: str, job: Job, name: str) -> tuple[str, dict[str, str]]:
    """The path to PUT the child *name* of *job* to, and the headers that name its parent."""
    values = {"parent": job.job_id, "attempt": job.attempt, "worker": worker, "name": name}
    headers = {CHILD_HEADER: urlencode(values, errors="surrogatepass")}
    return f"/v1/jobs/{child_id(job.job_id, name)}", headers


def parse_child_header(text: str) -> tuple[AttemptHolder, str]:
    """The holder of the parent's attempt, and the name of the child. Raises ReservedId."""
    try:
        values = dict(parse_qsl(text, keep_blank_values=True, errors="surrogatepass"))
        holder = AttemptHolder(parse_id(values["parent"]), int(values["attempt"]), values["worker"])
        return holder, values["name"]
    except (KeyError, ValueError, InvalidInput) as error:
        raise ReservedId(f"the header {CHILD_HEADER} cannot be read") from error


def _parse_job(body: dict[str, Any]) -> Job:
    artifacts = tuple(
        Artifact(each["name"], each["sha256"], each["size"], each["media_type"])
        for each in body["artifacts"]
    )
    spec = {name: body[name] for name in _SPEC_FIELDS if name in body}
    return Job(
        body["job_id"],
        JobSpec(**{**spec, "artifacts": artifacts}),
        born=body["position"],
        created_us=_parse_us(body["created_at"]) or 0,
        version=body["version"],
        position=body["position"],
        updated_us=_parse_us(body["updated_at"]) or 0,
        status=Status.RUNNING,
        attempt=body["attempt"],
        lease_s=body["lease_s"],
        started_us=_parse_us(body["started_at"]),
        cancel_requested_us=_parse_us(body["cancel_requested_at"]),
        artifacts=artifacts,
    )


def _parse_us(time: str | None) -> int | None:
    return None if time is None else microseconds(parse_rfc3339(time))


def report_body(report: Report) -> tuple[str, dict[str, Any]]:
    """The name of *report* in its path, and its body."""
    match report:
        case ProgressReported():
            body = asdict(report)
            del body["attempt"]
            return "progress", body
        case LogWritten():
            line = {"level": report.level, "message": report.message or "", "fields": report.fields}
            return "log", {"lines": [line]}
        case StepCompleted(name=name, number=number, result=result, was=was):
            return "step", {"name": name, "number": number, "result": result, "was": was}
        case ArtifactStored(name=name, sha256=sha256, media_type=media_type):
            return "artifact", {"name": name, "sha256": sha256, "media_type": media_type}
        case BreakerChanged(name=name, state=state, failures=failures, until_us=until_us):
            until = None if until_us is None else rfc3339(until_us)
            return "breaker", {"name": name, "state": state, "failures": failures, "until": until}
        case _ as never:
            assert_never(never)


def completion_body(job: Job, body: dict[str, Any]) -> dict[str, Any]:
    """One job of a request that completes several."""
    return {"job_id": job.job_id, "attempt": job.attempt, **body}


def outcome_body(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    """The name of the end in its path, and its body."""
    match outcome:
        case Succeeded(result=result, issues=issues):
            return "complete", {"result": result, "issues": issues}
        case Failed():
            body = asdict(outcome)
            body["code"] = outcome.code[:200] or "error"
            del body["trace"]  # for the log of the worker
            return "fail", body
        case Cancelled():
            return "cancelled", {}
        case Released(reason=reason):
            return "release", {"reason": reason}
        case HandedOver():
            raise AssertionError("only the service hands jobs over to external services")
        case _ as never:
            assert_never(never)
