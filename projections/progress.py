"""The progress of each job, and an estimate of its remaining time.

The estimate is a range learned from completed jobs of the same type and stage.
"""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from eventjobs.domain.events import JobCompleted
from eventjobs.domain.job import Job, Status
from eventjobs.projections.attempt_progress import Progress
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "progress"
VERSION = 2

#: Durations stored for each type and stage: the newest ones.
SAMPLES_MAX = 32
#: With fewer durations there is no estimate.
SAMPLES_MIN = 3
#: A job stalls when it has not reported for this many usual durations of its stage, and at least
#: for this long.
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
DELETE_PROGRESS = "DELETE FROM progress WHERE born IN (SELECT value FROM json_each(?1))"
# SQLite materialises a SELECT that reads the table it inserts into. So the numbers are computed
# before the first row is written.
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


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    changed = []
    removed = []
    completed: list[tuple[int, JobChange]] = []
    for change in changes:
        if change.progress is not None and change.progress is not change.progress_before:
            changed.append((change.after.born, change.progress.dump()))
        elif change.progress is None and change.progress_before is not None:
            removed.append(change.after.born)  # the newer record of an imported job has none
        if change.after.status == Status.COMPLETED:  # a completed job stays completed
            completed += [
                (recorded.position, change)
                for recorded in change.events
                if isinstance(recorded.event, JobCompleted)
            ]
    durations: dict[tuple[str, str], list[tuple[int, int]]] = {}
    # In the order of the log: that of *changes* depends on where the batch was cut.
    for _, change in sorted(completed, key=itemgetter(0)):
        for stage, place, duration_us in _durations(change.after, change.progress):
            key = change.after.spec.type, stage
            durations.setdefault(key, []).append((place, duration_us))
    if changed:
        yield PUT_PROGRESS, rows(changed)
    if removed:
        yield DELETE_PROGRESS, rows(removed)
    samples = [
        (*key, number, *sample)
        for key, of_stage in durations.items()
        for number, sample in list(enumerate(of_stage, 1))[-SAMPLES_MAX:]
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
    """The usual duration of a stage: nine in ten lie between *low_us* and *high_us*.

    *place* is the number of the stage in its job, from 0.
    """

    place: int
    low_us: int
    high_us: int


class Estimate(NamedTuple):
    """The remaining time as a range, and the *pace*: "usual", "slower" or "stalled".

    "slower" is slower than nine jobs in ten. A pace other than "usual" has no range.
    """

    low_s: float | None
    high_s: float | None
    pace: str


def usual_durations(rows: list[list[Any]]) -> dict[str, dict[str, UsualDuration]]:
    """Usual durations by type and stage, from the rows of SELECT_DURATIONS.

    Stages with fewer than SAMPLES_MIN are left out.
    """
    grouped: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for type, stage, place, duration_us in rows:
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
    """The remaining time of a running job; None without enough completed jobs of its type."""
    whole = usual.get("")
    if job.status != Status.RUNNING or job.started_us is None or whole is None:
        return None
    last_report_us = max(job.started_us, progress.reported_us if progress else 0)
    stage = progress.stages[-1] if progress and progress.stages else None
    current = usual.get(stage.name) if stage else None
    if stage is None or current is None:
        current, began_us, rest = whole, job.started_us, []
    else:
        began_us = stage.started_us
        rest = [each for name, each in usual.items() if name and each.place > current.place]
    spent_us = max(0, now_us - began_us)
    low_us = max(0, current.low_us - spent_us) + sum(each.low_us for each in rest)
    high_us = max(0, current.high_us - spent_us) + sum(each.high_us for each in rest)
    pace = "slower" if spent_us > current.high_us else "usual"
    if now_us - last_report_us > max(STALLED_MIN_US, STALLED_FACTOR * current.high_us):
        pace = "stalled"
    if pace != "usual":
        return Estimate(None, None, pace)
    return Estimate(low_us / 1e6, high_us / 1e6, pace)
