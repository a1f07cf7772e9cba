"""How far each job is, and how long its kind of job usually takes.

Remaining time is a range learned from earlier jobs of the same type and stage; where there is
nothing to learn from, it is nothing.
"""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from eventjobs.domain.events import JobCompleted
from eventjobs.domain.job import Job, Status
from eventjobs.projections.attempt_progress import Progress
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "progress"
VERSION = 1

#: Completed runs remembered for each type and stage, the newest ones.
SAMPLES_MAX = 32
#: Fewer than this say nothing.
SAMPLES_MIN = 3
#: Silence longer than this many times the stage's usual length, and this long, is a stall.
STALLED_FACTOR = 3
STALLED_MIN_US = 10_000_000

SCHEMA = """
CREATE TABLE progress (
  born  INTEGER PRIMARY KEY,
  state TEXT NOT NULL
) STRICT;

-- How long the stages of completed jobs took, newest SAMPLES_MAX of each; the stage '' is the
-- whole run.
CREATE TABLE stage_times (
  type        TEXT    NOT NULL,
  stage       TEXT    NOT NULL,
  slot        INTEGER NOT NULL,
  number      INTEGER NOT NULL,   -- how many there had been
  place       INTEGER NOT NULL,   -- which stage of its job it was: 0, 1, 2 ...
  duration_us INTEGER NOT NULL,
  PRIMARY KEY (type, stage, slot)
) STRICT, WITHOUT ROWID;
"""

PUT_PROGRESS = "INSERT OR REPLACE INTO progress SELECT value ->> 0, value -> 1 FROM json_each(?1)"
# The numbers are worked out before the first row is written: SQLite materialises a SELECT that
# reads the table it is inserted into.
ADD_DURATIONS = """
INSERT OR REPLACE INTO stage_times
SELECT type, stage, number % 32, number, place, duration_us FROM (
  SELECT value ->> 0 AS type, value ->> 1 AS stage, value ->> 3 AS place,
    value ->> 4 AS duration_us,
    (value ->> 2) + coalesce((SELECT max(number) FROM stage_times
      WHERE type = value ->> 0 AND stage = value ->> 1), 0) AS number
  FROM json_each(?1))
"""
SELECT_PROGRESS = """
SELECT json_group_array(json_array(job_id, json(progress.state)))
FROM progress JOIN jobs USING (born)
WHERE job_id IN (SELECT value FROM json_each(?1))
"""
SELECT_DURATIONS = """
SELECT json_group_array(json_array(type, stage, place, duration_us)) FROM (
  SELECT * FROM stage_times WHERE type IN (SELECT value FROM json_each(?1))
  ORDER BY type, stage, number)
"""


def apply(touched: Iterable[JobChange]) -> Iterator[Statement]:
    changed = []
    completed: list[tuple[int, JobChange]] = []
    for each in touched:
        if each.progress is not None and each.progress is not each.progress_before:
            changed.append((each.after.born, each.progress.dump()))
        if each.after.status == Status.COMPLETED:  # and stays so: all others need no look
            completed += [
                (recorded.position, each)
                for recorded in each.events
                if isinstance(recorded.event, JobCompleted)
            ]
    learned: dict[tuple[str, str], list[tuple[int, int]]] = {}
    # In the order of the log: that of *touched* depends on where the batch was cut.
    for _, each in sorted(completed, key=itemgetter(0)):
        for stage, place, duration_us in _durations(each.after, each.progress):
            learned.setdefault((each.after.spec.type, stage), []).append((place, duration_us))
    if changed:
        yield PUT_PROGRESS, rows(changed)
    samples = [
        (*key, number, *sample)
        for key, found in learned.items()
        for number, sample in list(enumerate(found, 1))[-SAMPLES_MAX:]
    ]
    if samples:
        yield ADD_DURATIONS, rows(samples)


def _durations(job: Job, progress: Progress | None) -> Iterator[tuple[str, int, int]]:
    if job.started_us is not None and job.finished_us is not None:
        yield "", 0, max(0, job.finished_us - job.started_us)
    for place, stage in enumerate(progress.stages if progress else ()):
        if stage.ended_us is not None:
            yield stage.name, place, max(0, stage.ended_us - stage.started_us)


class UsualDuration(NamedTuple):
    """How long a stage of completed jobs took: nine in ten lie between *low_us* and *high_us*."""

    place: int
    low_us: int
    high_us: int


class Estimate(NamedTuple):
    """What is left, as a range, and the *pace*: "usual", "slower" (than nine in ten) or "stalled".

    A job that has outlasted what it could be compared with has a pace, and no range.
    """

    low_s: float | None
    high_s: float | None
    pace: str


def usual_durations(found: list[list[Any]]) -> dict[str, dict[str, UsualDuration]]:
    """By type and stage, from the rows of TIMES; too few samples are left out."""
    grouped: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for type, stage, place, duration_us in found:
        grouped.setdefault(type, {}).setdefault(stage, []).append((place, duration_us))
    return {
        type: {
            stage: _usual(samples)
            for stage, samples in stages.items()
            if len(samples) >= SAMPLES_MIN
        }
        for type, stages in grouped.items()
    }


def _usual(samples: list[tuple[int, int]]) -> UsualDuration:
    durations = sorted(duration for _, duration in samples)
    last = len(durations) - 1
    return UsualDuration(
        samples[-1][0], durations[round(last * 0.05)], durations[round(last * 0.95)]
    )


def estimate(
    job: Job, progress: Progress | None, usual: dict[str, UsualDuration], now_us: int
) -> Estimate | None:
    """What is left of a running job, or None when there is nothing to learn from."""
    whole = usual.get("")
    if job.status != Status.RUNNING or job.started_us is None or whole is None:
        return None
    heard_us = max(job.started_us, progress.reported_us if progress else 0)
    stage = progress.stages[-1] if progress and progress.stages else None
    here = usual.get(stage.name) if stage else None
    if stage is None or here is None:
        here, began_us, rest = whole, job.started_us, []
    else:
        began_us = stage.started_us
        rest = [each for name, each in usual.items() if name and each.place > here.place]
    spent_us = max(0, now_us - began_us)
    low_us = max(0, here.low_us - spent_us) + sum(each.low_us for each in rest)
    high_us = max(0, here.high_us - spent_us) + sum(each.high_us for each in rest)
    pace = "slower" if spent_us > here.high_us else "usual"
    if now_us - heard_us > max(STALLED_MIN_US, STALLED_FACTOR * here.high_us):
        pace = "stalled"
    if pace != "usual":
        return Estimate(None, None, pace)
    return Estimate(low_us / 1e6, high_us / 1e6, pace)
