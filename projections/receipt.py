"""The receipt of a job: who ran each attempt and when, overlaps, and late reports."""

from dataclasses import dataclass, field
from typing import Any

from eventjobs.domain.events import (
    ENDS_ATTEMPT,
    AttemptFailed,
    AttemptHandedOver,
    AttemptStarted,
    JobImported,
    LateReportRefused,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339


@dataclass
class _Run:
    """One attempt. Its worker is known to have run from *started_us* to *active_until_us*."""

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
    def active_until_us(self) -> float:
        """The end of the attempt, or its last late report: its worker still ran then."""
        if self.ended_us is None:
            return float("inf")
        return max([self.ended_us, *(each.at_us for each in self.late)])

    def overlaps(self, other: "_Run") -> bool:
        return (
            other is not self
            and self.started_us < other.active_until_us
            and other.started_us < self.active_until_us
        )


def describe_receipt(events: list[Recorded]) -> dict[str, Any]:
    """The receipt as JSON. *events* are all of one job's, oldest first.

    `attempts` has an entry for each attempt, `text` a line for each attempt and late report.
    """
    runs = _runs(events)
    attempts = [_attempt_entry(run, runs) for run in runs]
    text = [line for attempt in attempts for line in _text(attempt)]
    if events and isinstance(first := events[0].event, JobImported):
        text = [f"imported from {first.source}; another program runs it, or ran it"]
    overlaps = any(attempt["overlaps"] for attempt in attempts)
    return {"attempts": attempts, "overlaps": overlaps, "text": text}


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


def _attempt_entry(run: _Run, runs: list[_Run]) -> dict[str, Any]:
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


def _text(attempt: dict[str, Any]) -> list[str]:
    until = attempt["ended_at"] or "now"
    took = "" if attempt["duration_s"] is None else f" ({attempt['duration_s']:.3f} s)"
    parts = [
        f"attempt {attempt['attempt']}",
        attempt["worker"] + (f", then {attempt['service']}" if attempt["service"] else ""),
        "no lease" if attempt["lease_s"] is None else f"lease {attempt['lease_s']:g} s",
        f"{attempt['started_at']} to {until}{took}",
        f"{attempt['outcome']}: {attempt['code']}" if attempt["code"] else attempt["outcome"],
    ]
    if attempt["overlaps"]:
        parts.append(f"OVERLAPS attempt {', '.join(map(str, attempt['overlaps']))}")
    refused = [
        f"  REFUSED {each['report']} of attempt {attempt['attempt']} by {each['actor']}"
        f" at {each['at']}, {each['after_s']:.3f} s after its end"
        for each in attempt["late"]
    ]
    return ["  ".join(parts), *refused]
