"""One job's attempts, a line each: who held it and when, what overlaps, and what came too late."""

from dataclasses import dataclass, field
from typing import Any

from eventjobs.domain.events import (
    ENDS_ATTEMPT,
    AttemptFailed,
    AttemptHandedOver,
    AttemptStarted,
    LateReportRefused,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339


@dataclass
class _Run:
    """One attempt. It is known to have been at work from *started_us* to *known_us*."""

    attempt: int
    worker: str
    lease_s: float | None
    started_us: int
    ended_us: int | None = None
    outcome: str = "running"
    code: str | None = None
    service: str | None = None
    late: list[Recorded] = field(default_factory=list)

    @property
    def known_us(self) -> float:
        """A report that came too late proves that its worker was still at work."""
        if self.ended_us is None:
            return float("inf")
        return max([self.ended_us, *(each.at_us for each in self.late)])

    def overlaps(self, other: "_Run") -> bool:
        return (
            other is not self
            and self.started_us < other.known_us
            and other.started_us < self.known_us
        )


def describe_receipt(events: list[Recorded]) -> dict[str, Any]:
    """*events* are all of one job's, oldest first.

    `attempts` has an entry for each run, `text` a line for each and one for each late report.
    """
    runs = _runs(events)
    told = [_told(run, runs) for run in runs]
    text = [line for each in told for line in _text(each)]
    return {"attempts": told, "overlaps": any(each["overlaps"] for each in told), "text": text}


def _runs(events: list[Recorded]) -> list[_Run]:
    runs: dict[int, _Run] = {}
    for recorded in events:
        event = recorded.event
        number = getattr(event, "attempt", None)
        if isinstance(event, AttemptStarted):
            run = _Run(event.attempt, event.worker, event.lease_s, recorded.at_us)
            runs[event.attempt] = run
        elif number not in runs:
            continue
        elif isinstance(event, LateReportRefused):
            runs[number].late.append(recorded)
        elif isinstance(event, AttemptHandedOver):
            runs[number].service = event.worker
        elif (outcome := ENDS_ATTEMPT.get(type(event))) is not None:
            runs[number].outcome = outcome
            runs[number].ended_us = recorded.at_us
            if isinstance(event, AttemptFailed):
                runs[number].code = event.code
    return list(runs.values())


def _told(run: _Run, runs: list[_Run]) -> dict[str, Any]:
    ended_us = run.ended_us
    return {
        "attempt": run.attempt,
        "worker": run.worker,
        "service": run.service,
        "lease_s": run.lease_s,
        "started_at": rfc3339(run.started_us),
        "ended_at": None if ended_us is None else rfc3339(ended_us),
        "duration_s": None if ended_us is None else max(0, ended_us - run.started_us) / 1e6,
        "outcome": run.outcome,
        "code": run.code,
        "overlaps": [other.attempt for other in runs if run.overlaps(other)],
        "late": [
            {
                "at": rfc3339(each.at_us),
                "after_s": max(0, each.at_us - (ended_us or each.at_us)) / 1e6,
                "report": each.event.report,
                "actor": each.actor,
            }
            for each in run.late
            if isinstance(each.event, LateReportRefused)
        ],
    }


def _text(told: dict[str, Any]) -> list[str]:
    until = told["ended_at"] or "now"
    took = "" if told["duration_s"] is None else f" ({told['duration_s']:.3f} s)"
    parts = [
        f"attempt {told['attempt']}",
        told["worker"] + (f", then {told['service']}" if told["service"] else ""),
        "no lease" if told["lease_s"] is None else f"lease {told['lease_s']:g} s",
        f"{told['started_at']} to {until}{took}",
        f"{told['outcome']}: {told['code']}" if told["code"] else told["outcome"],
    ]
    if told["overlaps"]:
        parts.append(f"OVERLAPS attempt {', '.join(map(str, told['overlaps']))}")
    refused = [
        f"  REFUSED {each['report']} of attempt {told['attempt']} by {each['actor']}"
        f" at {each['at']}, {each['after_s']:.3f} s after its end"
        for each in told["late"]
    ]
    return ["  ".join(parts), *refused]
