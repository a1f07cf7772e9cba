"""Each job ends once, by the attempt that held it, though workers are killed and paused."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from eventjobs.domain import events as e
from eventjobs.domain.spec import JobSpec
from eventjobs.tools.soak.kills.checker import Row
from eventjobs.tools.soak.kills.history import Due
from eventjobs.tools.soak.leases.campaign import Plan, campaign
from eventjobs.tools.soak.leases.checker import LeaseChecker
from eventjobs.tools.soak.leases.fates import NEVER_US, Fate, Fates
from tests.conftest import CAMPAIGN_RESULT
from tests.support.log_rows import rows_of

JOBS = 2_000
LOST_MIN, LATE_MIN = 20, 10


@pytest.mark.timeout(600)
def test_two_thousand_jobs_survive_kills_and_pauses_of_workers_and_kills_of_the_service(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = asyncio.run(campaign(tmp_path / "data", Plan(JOBS, seed=1)))
    record_property(CAMPAIGN_RESULT, str(outcome))
    assert not outcome.faults
    assert outcome.kills, "no worker was killed"
    assert outcome.pauses, "no worker was paused"
    assert len(outcome.fates.lives) > 1, "the service was never killed"
    assert outcome.checker.lost >= LOST_MIN, "hardly anything was lost"
    assert outcome.checker.late >= LATE_MIN, "hardly anybody was late"


# --- the judge notices

A = "00000000-0000-4000-8000-00000000000a"
B = "00000000-0000-4000-8000-00000000000b"
LEASE_S = 2.0

Entry = tuple[float, str, str, e.Event]


def submission(token: str) -> e.JobSubmitted:
    return e.JobSubmitted(JobSpec("nap", {"token": token}, max_attempts=9))


def lost(attempt: int, at_s: float) -> e.AttemptFailed:
    return e.AttemptFailed(attempt, "worker_lost", True, round(at_s * 1e6), "not heard from")


class World:
    """A worker is killed with one job in its hands, another one is paused with the other."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [
            (1.0, A, "http", submission("job A")),
            (1.0, B, "http", submission("job B")),
            (2.0, A, "w1", e.AttemptStarted(1, "w1", LEASE_S)),
            (2.0, B, "w2", e.AttemptStarted(1, "w2", LEASE_S)),
            (2.5, A, "w1", e.ProgressReported(1, 1, 2)),
            # 3.0: w1 is killed, w2 is paused until 7.0
            (5.5, A, "service", lost(1, 5.5)),
            (5.9, B, "service", lost(1, 5.9)),
            (6.0, A, "w3", e.AttemptStarted(2, "w3", LEASE_S)),
            (6.0, B, "w3", e.AttemptStarted(2, "w3", LEASE_S)),
            (6.5, A, "w3", e.JobCompleted(2)),
            (7.1, B, "w2", e.LateReportRefused(1, "complete")),
            (7.5, B, "w3", e.JobCompleted(2)),
            (2.6, B, "w2", e.ProgressReported(1, 1, 2)),
        ]
        self.fates = Fates(
            us(LEASE_S),
            {
                "w1": Fate([], us(3.0)),
                "w2": Fate([(us(3.0), us(7.0))]),
                "w3": Fate(),
            },
            [(us(0.5), NEVER_US)],
        )
        self.submitted = {A, B}

    # Changes to the history.

    def at(self, number: int, seconds: float) -> Self:
        self.entries[number] = (seconds, *self.entries[number][1:])
        return self

    def event(self, number: int, event: e.Event, actor: str | None = None) -> Self:
        at_s, job_id, before, _ = self.entries[number]
        self.entries[number] = at_s, job_id, actor or before, event
        return self

    def also(self, at_s: float, job_id: str, actor: str, event: e.Event) -> Self:
        self.entries.append((at_s, job_id, actor, event))
        return self

    def without(self, number: int) -> Self:
        del self.entries[number]
        return self

    def restart(self, died_s: float, ready_s: float) -> Self:
        self.fates.lives = [(us(0.5), us(died_s)), (us(ready_s), NEVER_US)]
        return self

    def fate(self, worker: str, fate: Fate) -> Self:
        self.fates.workers[worker] = fate
        return self

    def faults(self) -> list[str]:
        self.entries.sort(key=lambda each: each[0])
        rows: list[Row] = [
            row._replace(at_us=us(at_s))
            for row, (at_s, *_) in zip(
                rows_of([each[1:] for each in self.entries]), self.entries, strict=True
            )
        ]
        checker = LeaseChecker({"job A", "job B"})
        checker.check("log", rows, Due([], set(), []))
        checker.judge(self.submitted, self.fates)
        return checker.faults


def us(seconds: float) -> int:
    return round(seconds * 1e6)


def test_a_true_history_is_no_reason_to_complain() -> None:
    assert not World().faults()


TAMPERED: dict[str, tuple[Callable[[World], Any], str]] = {
    "a job was never completed": (
        lambda world: world.without(9),
        f"job {A} was completed 0 times",
    ),
    "a job is not there at all": (
        lambda world: world.submitted.add("elsewhere"),
        "job elsewhere was completed 0 times",
    ),
    "a job was completed twice": (
        lambda world: world.also(8.0, A, "w3", e.JobCompleted(2)),
        f"job {A} was completed 2 times",
    ),
    "the attempt that was lost completed the job": (
        lambda world: world.event(9, e.JobCompleted(1), "w1"),
        "its job is running in attempt 2",
    ),
    "another worker completed the job": (
        lambda world: world.event(9, e.JobCompleted(2), "w2"),
        "w3 holds the attempt",
    ),
    "another worker gave the job back": (
        lambda world: world.event(6, e.AttemptReleased(1, "not mine"), "w3"),
        "w2 holds it",
    ),
    "a dead worker's job waited too long": (
        lambda world: world.at(5, 6.1).at(7, 6.2),
        f"attempt 1 of job {A}, by w1 was ended 1.10 s after its lease",
    ),
    "a paused worker's job waited too long": (
        lambda world: world.at(6, 6.3).at(8, 6.4),
        f"attempt 1 of job {B}, by w2 was ended 1.30 s after its lease",
    ),
    "a dead worker's job waited longer than a restart explains": (
        lambda world: world.restart(2.6, 3.2).at(5, 6.4).at(7, 6.5).at(9, 6.6),
        "was ended 1.20 s after its lease",
    ),
    "a live worker was robbed": (
        lambda world: (
            world.without(9)
            .also(6.6, A, "service", lost(2, 6.6))
            .also(6.7, A, "w3", e.AttemptStarted(3, "w3", LEASE_S))
            .also(6.8, A, "w3", e.JobCompleted(3))
        ),
        f"attempt 2 of job {A}, by w3 was taken from it, though it lived",
    ),
    "a worker was robbed before its pause": (
        lambda world: world.fate("w2", Fate([(us(5.95), us(7.0))])),
        f"attempt 1 of job {B}, by w2 was taken from it, though it lived",
    ),
    "a late report left no evidence": (
        lambda world: world.without(10),
        f"attempt 1 of job {B}, by w2 was late, and no LateReportRefused was recorded",
    ),
    "somebody else left the evidence": (
        lambda world: world.event(10, e.LateReportRefused(1, "complete"), "w1"),
        "was not late, and w1 was refused",
    ),
    "who was in time was refused": (
        lambda world: world.also(6.4, A, "w3", e.LateReportRefused(2, "complete")),
        "it was not late",
    ),
    "an attempt failed by itself": (
        lambda world: world.event(5, e.AttemptFailed(1, "handler_error", True, us(5.5)), "w1"),
        "ended as handler_error",
    ),
    "a worker is unknown": (
        lambda world: world.fates.workers.pop("w3"),
        "there is no such worker",
    ),
}


@pytest.mark.parametrize("tampered", TAMPERED)
def test_the_judge_notices_that(tampered: str) -> None:
    tamper, complaint = TAMPERED[tampered]
    world = World()
    tamper(world)
    faults = world.faults()
    assert any(complaint in each for each in faults), faults


EXCUSED: dict[str, Callable[[World], World]] = {
    "after a restart a dead worker has one full period again": lambda world: world.restart(
        2.6, 3.2
    ).at(5, 5.95),
    "a claim whose answer a crash cut off is lost, though its worker lives": lambda world: (
        world.restart(2.6, 3.2).fate("w1", Fate())
    ),
    "who was killed again had no time to be late": lambda world: world.without(10).fate(
        "w2", Fate([(us(3.0), us(7.0))], us(7.05))
    ),
    "who told nothing may not know of the claim": lambda world: world.without(12).without(10),
    "what is given back at the end of a worker is no loss": lambda world: world.event(
        6, e.AttemptReleased(1, "the worker was stopped"), "w2"
    ).without(10),
    "what nobody was there to take is given back by the service": lambda world: world.event(
        6, e.AttemptReleased(1, "it had gone"), "service"
    ).without(10),
}


@pytest.mark.parametrize("excused", EXCUSED)
def test_it_is_no_reason_to_complain_that(excused: str) -> None:
    world = World()
    EXCUSED[excused](world)
    assert not world.faults()
