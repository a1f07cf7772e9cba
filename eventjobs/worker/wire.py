"""What goes between a service and its workers elsewhere as JSON: jobs there, reports back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
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
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import InvalidInput, ReservedId
from eventjobs.execution.source import Capacity

#: The header with which a worker submits the children of a job that it holds.
CHILD_HEADER = "Eventjobs-Child"
_SPEC = tuple(each.name for each in fields(JobSpec))
#: A job that is completed, and what is told of that.
JobResult = tuple[Job, dict[str, Any]]


@dataclass(frozen=True)
class ClaimedJob:
    """A job that was claimed; *steps* are results of earlier attempts, by name and in order."""

    job: Job
    lease_s: float
    steps: dict[str, Any]


@dataclass(eq=False)
class HeldJob:
    """A job that a worker has: what it fetched for it, and whether it is through with it."""

    work: ClaimedJob
    files: set[str] = field(default_factory=set)
    #: Its end is being told, and that alone will tell whether it was lost.
    ending: bool = False

    @property
    def job(self) -> Job:
        return self.work.job


def claim_body(rooms: Sequence[Capacity], size: int) -> dict[str, Any]:
    """How up to *size* jobs that fit into *rooms* are asked for."""
    asked: dict[str, Any] = {
        "types": [type for room in rooms for type in room.types],
        "max": size,
        "limits": [
            {"types": list(room.types), "max": room.free} for room in rooms if room.free < size
        ],
    }
    if only := [type for room in rooms for type in room.children_only]:
        asked["children_only"] = only  # else unsaid: an older service does not know of it
    return asked


def parse_claimed_job(told: dict[str, Any]) -> ClaimedJob:
    """As the service answers a claim."""
    steps = {each["name"]: each["result"] for each in told["steps"]}
    return ClaimedJob(_parse_job(told), told["lease_s"], steps)


def submission_body(spec: JobSpec) -> dict[str, Any]:
    """*spec* as it is submitted over HTTP."""
    said = {name: value for name, value in asdict(spec).items() if value not in (None, ())}
    if not spec.max_attempts:
        del said["max_attempts"]
    if (run_at_us := said.pop("run_at_us", None)) is not None:
        said["run_at"] = rfc3339(run_at_us)
    if spec.artifacts:
        said["artifacts"] = {each.name: each.sha256 for each in spec.artifacts}
    return said | {"payload": spec.payload}


def child_request(worker: str, job: Job, name: str) -> tuple[str, dict[str, str]]:
    """The path that a child is PUT at, and the header that says whose child it is."""
    named = {"parent": job.job_id, "attempt": job.attempt, "worker": worker, "name": name}
    headers = {CHILD_HEADER: urlencode(named, errors="surrogatepass")}
    return f"/v1/jobs/{child_id(job.job_id, name)}", headers


def parse_child_header(text: str) -> tuple[AttemptHolder, str]:
    """The holder of the parent's attempt, and the name. Raises ReservedId."""
    try:
        told = dict(parse_qsl(text, keep_blank_values=True, errors="surrogatepass"))
        holder = AttemptHolder(parse_id(told["parent"]), int(told["attempt"]), told["worker"])
        return holder, told["name"]
    except (KeyError, ValueError, InvalidInput) as error:
        raise ReservedId(f"the header {CHILD_HEADER} cannot be read") from error


def _parse_job(told: dict[str, Any]) -> Job:
    artifacts = tuple(
        Artifact(each["name"], each["sha256"], each["size"], each["media_type"])
        for each in told["artifacts"]
    )
    given = {name: told[name] for name in _SPEC if name in told}
    return Job(
        told["job_id"],
        JobSpec(**{**given, "artifacts": artifacts}),
        born=told["position"],
        created_us=_parse_us(told["created_at"]) or 0,
        version=told["version"],
        position=told["position"],
        updated_us=_parse_us(told["updated_at"]) or 0,
        status=Status.RUNNING,
        attempt=told["attempt"],
        lease_s=told["lease_s"],
        started_us=_parse_us(told["started_at"]),
        cancel_requested_us=_parse_us(told["cancel_requested_at"]),
        artifacts=artifacts,
    )


def _parse_us(time: str | None) -> int | None:
    return None if time is None else round(datetime.fromisoformat(time).timestamp() * 1e6)


def report_body(report: Report) -> tuple[str, dict[str, Any]]:
    """How *report* is called, and what is sent."""
    match report:
        case ProgressReported():
            told = asdict(report)
            del told["attempt"]
            return "progress", told
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
    """How *job* was completed, among others that were."""
    return {"job_id": job.job_id, "attempt": job.attempt, **body}


def outcome_body(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    """The same for how an attempt ended."""
    match outcome:
        case Succeeded(result=result, issues=issues):
            return "complete", {"result": result, "issues": issues}
        case Failed():
            told = asdict(outcome)
            told["code"] = outcome.code[:200] or "error"
            del told["trace"]  # for the log of the worker
            return "fail", told
        case Cancelled():
            return "cancelled", {}
        case Released(reason=reason):
            return "release", {"reason": reason}
        case HandedOver():
            raise AssertionError("only the service itself gives jobs to external services")
        case _ as never:
            assert_never(never)
