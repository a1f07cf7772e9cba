"""Compares the log with the fates of the workers: did leases keep their promises?

Besides the rules of every log: each job was completed once, by the attempt that held it; a dead or
silent worker lost its job in time, a live one never; and late reports are recorded. Times are those
of the events.
"""

from collections import Counter
from typing import NamedTuple

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    JobCancelled,
    JobCompleted,
    LateReportRefused,
)
from eventjobs.domain.recorded import Recorded

from ..kills.checker import Checker
from .fates import NEVER_US, Fate, Fates

#: An attempt ends at most this long after its lease.
NOTICE_US = 1_000_000
#: A continued worker has sent its report, or knows that it lost the attempt, after this time.
SETTLED_US = 5_000_000
#: Between a claim and its response.
ANSWER_US = 1_000_000


class Attempt(NamedTuple):
    """One attempt, as far as the log was read."""

    job_id: str
    number: int
    worker: str
    started_us: int
    reported_us: int
    end: str | None = None
    ended_us: int = NEVER_US

    def __str__(self) -> str:
        return f"attempt {self.number} of job {self.job_id}, by {self.worker}"


class LeaseChecker(Checker):
    """Reads the whole log; *judge* then adds the faults about leases."""

    def __init__(self, attempted: set[str]) -> None:
        super().__init__(attempted)
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._late: set[tuple[str, int, str]] = set()
        self._ends: Counter[str] = Counter()
        #: the longest time from the end of a lease to the end of its attempt
        self.slowest_us = 0

    @property
    def lost(self) -> int:
        return sum(each.end == "lost" for each in self._attempts.values())

    @property
    def late(self) -> int:
        return len(self._late)

    def _find(self, recorded: Recorded, where: str) -> None:
        super()._find(recorded, where)
        event, job_id, at_us = recorded.event, recorded.job_id, recorded.at_us
        number = getattr(event, "attempt", None)
        if isinstance(event, AttemptStarted):
            started = Attempt(job_id, event.attempt, event.worker, at_us, at_us)
            self._attempts[job_id, event.attempt] = started
            return
        attempt = None if number is None else self._attempts.get((job_id, number))
        if attempt is None:
            return
        match event:
            case LateReportRefused():
                if attempt.end in (None, "completed") or recorded.actor != attempt.worker:
                    self.fault(f"{where}: {attempt} was not late, and {recorded.actor} was refused")
                self._late.add((job_id, attempt.number, recorded.actor))
            case JobCompleted():
                self._end_attempt(attempt, "completed", at_us)
                self._ends[job_id] += 1
            case AttemptFailed(code=code):
                self._end_attempt(attempt, "lost" if code == "worker_lost" else code, at_us)
            case AttemptReleased() | JobCancelled():
                self._end_attempt(attempt, "given back", at_us)
            case _:
                self._attempts[job_id, attempt.number] = attempt._replace(reported_us=at_us)

    def _end_attempt(self, attempt: Attempt, how: str, at_us: int) -> None:
        ended = attempt._replace(end=how, ended_us=at_us)
        self._attempts[attempt.job_id, attempt.number] = ended

    # --- judgement

    def judge(self, submitted: set[str], fates: Fates) -> None:
        """Every job of *submitted* must be completed, in spite of the *fates*."""
        for job_id in sorted(submitted):
            if self._ends[job_id] != 1:
                self.fault(f"job {job_id} was completed {self._ends[job_id]} times")
        for attempt in self._attempts.values():
            fate = fates.workers.get(attempt.worker)
            if fate is None:
                self.fault(f"{attempt}: there is no such worker")
            elif attempt.end == "lost":
                self._judge_lost(attempt, fate, fates)
            elif attempt.end not in ("completed", "given back"):
                self.fault(f"{attempt} ended as {attempt.end}")

    def _judge_lost(self, attempt: Attempt, fate: Fate, fates: Fates) -> None:
        lost_us, lease_us = attempt.ended_us, fates.lease_us
        # The last silence that began before the loss.
        silent_us, back_us = max(
            (each for each in fate.silences() if each[0] <= lost_us),
            default=(0, 0),
        )
        ready_us = fates.last_ready_us(lost_us)
        was_silent = back_us > lost_us - lease_us
        # A restart renews every lease, also those of dead workers.
        renewed_us = max(attempt.reported_us, ready_us, silent_us if was_silent else 0)
        waited_us = lost_us - renewed_us - lease_us
        self.slowest_us = max(self.slowest_us, waited_us)
        if waited_us > NOTICE_US:
            over = f"{waited_us / 1e6:.2f} s after its lease"
            self.fault(f"{attempt} was ended {over}, and {NOTICE_US / 1e6:g} s is the promise")
        unanswered = fates.died_within(attempt.started_us, attempt.started_us + ANSWER_US)
        if not was_silent and not unanswered:
            self.fault(f"{attempt} was taken from it, though it lived")
        evidence = (attempt.job_id, attempt.number, attempt.worker) in self._late
        # A worker that reported nothing may have withdrawn the claim, for want of a response.
        knew = attempt.reported_us > attempt.started_us
        if knew and _reported_late(fate, attempt) and not evidence:
            self.fault(f"{attempt} was late, and no LateReportRefused was recorded")


def _reported_late(fate: Fate, attempt: Attempt) -> bool:
    """Whether its worker was paused at the loss, and lived on for long enough to report."""
    return any(
        from_us <= attempt.ended_us <= to_us and fate.ended_us > to_us + SETTLED_US
        for from_us, to_us in fate.pauses
    )
