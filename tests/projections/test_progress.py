"""How far a job is, and how long its kind usually takes: learned, or nothing."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.domain import events as e
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.attempt_progress import Progress, Stage, advance
from eventjobs.projections.progress import SAMPLES_MAX, SAMPLES_MIN, Estimate
from tests.support.clock import SECOND, FakeClock
from tests.support.decisions import as_recorded
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.views import quick_folder, running

submitted = e.JobSubmitted(JobSpec("csv", max_attempts=3))
started = e.AttemptStarted(1, "w")
started_again = e.AttemptStarted(2, "w")


# --- how far


def fold_progress(*events: e.Event) -> Progress | None:
    """The n-th event happened at second n."""
    progress = None
    for each in as_recorded(*events):
        progress = advance(progress, each)
    return progress


def test_a_job_that_tells_nothing_has_no_progress() -> None:
    assert fold_progress(submitted, started, e.JobCompleted(1)) is None


def test_progress_is_what_was_told_last() -> None:
    data = {"rows": 3}
    progress = fold_progress(
        submitted, started, e.ProgressReported(1, 3, 12, "read", "row 3", data)
    )
    assert progress == Progress(
        0.25, "read", "row 3", data, 3 * SECOND, (Stage("read", 3 * SECOND),)
    )


def test_what_is_not_told_again_stays() -> None:
    progress = fold_progress(
        submitted,
        started,
        e.ProgressReported(1, 3, 12, "read", "row 3", 5),
        e.ProgressReported(1, 6, 12),
    )
    assert progress == Progress(0.5, "read", "row 3", 5, 4 * SECOND, (Stage("read", 3 * SECOND),))


@given(st.lists(st.tuples(st.floats(-10, 30) | st.none(), st.sampled_from([None, 0, 7, 10]))))
def test_progress_never_goes_back_nor_beyond_the_end(
    reports: list[tuple[float | None, float | None]],
) -> None:
    fractions = [0.0]
    progress = None
    for each in as_recorded(*(e.ProgressReported(1, done, total) for done, total in reports)):
        progress = advance(progress, each)
        assert progress is not None
        fractions.append(progress.fraction)
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1


def test_a_new_attempt_begins_at_nothing() -> None:
    progress = fold_progress(
        submitted,
        started,
        e.ProgressReported(1, 9, 10, "write", "almost"),
        e.AttemptFailed(1, "io", True, 0),
        started_again,
    )
    assert progress == Progress(reported_us=5 * SECOND)


def test_a_completed_job_is_whole_whatever_it_told() -> None:
    progress = fold_progress(
        submitted, started, e.ProgressReported(1, 1, 10, "read"), e.JobCompleted(1)
    )
    assert progress is not None
    assert progress.fraction == 1
    assert progress.stages == (Stage("read", 3 * SECOND, 4 * SECOND),)


@pytest.mark.parametrize(
    "end", [e.AttemptFailed(1, "bug", False), e.AttemptReleased(1, "x"), e.JobCancelled(1)]
)
def test_an_attempt_that_ends_otherwise_stays_where_it_was(end: e.Event) -> None:
    progress = fold_progress(submitted, started, e.ProgressReported(1, 1, 10, "read"), end)
    assert progress is not None
    assert progress.fraction == 0.1
    assert progress.stages == (Stage("read", 3 * SECOND, 4 * SECOND),)


def test_what_tells_no_progress_changes_none() -> None:
    before = fold_progress(submitted, started, e.ProgressReported(1, 1, 10))
    after = fold_progress(
        submitted, started, e.ProgressReported(1, 1, 10), e.CancelRequested(), e.JobExpired("x")
    )
    assert after == before


def test_a_stage_ends_where_the_next_begins() -> None:
    names = ("read", "read", None, "sort", "read")
    progress = fold_progress(
        submitted, started, *(e.ProgressReported(1, stage=name) for name in names)
    )
    assert progress is not None
    assert progress.stages == (
        Stage("read", 3 * SECOND, 6 * SECOND),
        Stage("sort", 6 * SECOND, 7 * SECOND),
        Stage("read", 7 * SECOND),
    )


async def test_an_imported_job_has_the_progress_of_its_newest_record(clock: FakeClock) -> None:
    """Lists, which read the file, used to show that of an earlier record when it has none."""
    log = MemoryLog(clock)
    seen = []
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            for version, record in enumerate([{"progress": 35}, {}, {"progress": 70}]):
                imported = e.JobImported("csv", "running", "file", 0, version, record=record)
                await log.append(job_id(1), version, imported, actor="files")
                await views.wait_for_position(log.head)
                [listed] = await views.jobs({}, order="newest", cursor=None, limit=1)
                assert listed == await views.job(job_id(1))
                seen.append(listed.progress and listed.progress.fraction)
    assert seen == [0.35, None, 0.7]


# --- how long


class Kind:
    """Jobs of one type, of which some were done before."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.log = MemoryLog(clock)
        self.number = 0
        self.version = 0

    async def say(self, *events: e.Event) -> None:
        for event in events:
            await self.log.append(job_id(self.number), self.version, event, actor="w")
            self.version += 1

    async def begin(self, type: str = "csv") -> None:
        self.number += 1
        self.version = 0
        await self.say(e.JobSubmitted(JobSpec(type, max_attempts=3)), started)

    async def stage(self, name: str, seconds: float) -> None:
        await self.say(e.ProgressReported(1, stage=name))
        self.clock.jump_wall(seconds)

    async def run_jobs(
        self, times_s: Iterable[float], type: str = "csv", end: e.Event | None = None
    ) -> None:
        """Earlier jobs, each of one stage that took so long."""
        for seconds in times_s:
            await self.begin(type)
            self.clock.jump_wall(seconds)
            await self.say(end or e.JobCompleted(1))

    async def estimate(self) -> Estimate | None:
        """That of the newest job, now."""
        with quick_folder() as folder:
            async with running(folder / "views.db", self.log, self.clock) as views:
                await views.wait_for_position(self.log.head)
                view = await views.job(job_id(self.number))
                [listed] = await views.jobs(
                    {"job_id": [job_id(self.number)]}, order="newest", cursor=None, limit=1
                )
        assert view is not None
        assert listed == view
        return view.estimate


@pytest.fixture
def kind(clock: FakeClock) -> Kind:
    return Kind(clock)


async def test_what_is_left_is_a_range_learned_from_earlier_jobs(kind: Kind) -> None:
    await kind.run_jobs([12, 10, 14, 11, 13])
    await kind.begin()
    assert await kind.estimate() == Estimate(10, 14, "usual")
    kind.clock.jump_wall(4)
    assert await kind.estimate() == Estimate(6, 10, "usual")
    kind.clock.jump_wall(8)
    assert await kind.estimate() == Estimate(0, 2, "usual")
    kind.clock.jump_wall(2)
    assert await kind.estimate() == Estimate(0, 0, "usual")


async def test_there_is_nothing_to_learn_from_a_few(kind: Kind) -> None:
    await kind.run_jobs([10] * (SAMPLES_MIN - 1))
    await kind.begin()
    assert await kind.estimate() is None
    await kind.say(e.JobCompleted(1))
    await kind.begin()
    assert await kind.estimate() is not None


@pytest.mark.parametrize("end", [e.AttemptFailed(1, "bug", False), e.JobCancelled(1)])
async def test_only_completed_jobs_of_the_same_type_teach(kind: Kind, end: e.Event) -> None:
    await kind.run_jobs([10] * 5, end=end)
    await kind.run_jobs([10] * 5, type="other")
    await kind.begin()
    assert await kind.estimate() is None


async def test_the_newest_jobs_are_learned_from(kind: Kind) -> None:
    await kind.run_jobs([1000] * 8)
    await kind.run_jobs([10] * SAMPLES_MAX)
    await kind.begin()
    assert await kind.estimate() == Estimate(10, 10, "usual")


async def test_stages_are_learned_one_by_one(kind: Kind) -> None:
    for seconds in (1, 2, 3):
        await kind.begin()
        for name, times in (("read", 1), ("sort", 10), ("write", 100)):
            await kind.stage(name, seconds * times)
        await kind.say(e.JobCompleted(1))
    await kind.begin()
    await kind.stage("sort", 5)
    assert await kind.estimate() == Estimate(5 + 100, 25 + 300, "usual")
    await kind.stage("write", 50)
    assert await kind.estimate() == Estimate(50, 250, "usual")
    await kind.stage("a new one", 0)
    assert (await kind.estimate()) is not None, "the whole run is known"


async def test_a_job_slower_than_usual_says_so_instead_of_guessing(kind: Kind) -> None:
    await kind.run_jobs([10, 11, 12])
    await kind.begin()
    kind.clock.jump_wall(12.5)
    assert await kind.estimate() == Estimate(None, None, "slower")


@pytest.mark.parametrize(("usual_s", "silent_s"), [(1, 10), (20, 60)])
async def test_a_job_silent_for_too_long_has_stalled(
    kind: Kind, usual_s: float, silent_s: float
) -> None:
    """For three times what is usual, and ten seconds at least."""
    await kind.run_jobs([usual_s] * 3)
    await kind.begin()
    kind.clock.jump_wall(silent_s)
    view = await kind.estimate()
    assert view is not None
    assert view.pace == "slower"
    kind.clock.jump_wall(0.001)
    assert await kind.estimate() == Estimate(None, None, "stalled")
    await kind.say(e.ProgressReported(1, 1, 2))
    view = await kind.estimate()
    assert view is not None
    assert view.pace == "slower", "it has told something"


@pytest.mark.parametrize(
    "events",
    [
        (submitted,),
        (submitted, started, e.JobCompleted(1)),
        (submitted, started, e.AttemptFailed(1, "io", True, 0)),
        (submitted, e.JobCancelled()),
    ],
)
async def test_a_job_that_is_not_running_has_nothing_left_to_estimate(
    kind: Kind, events: tuple[Any, ...]
) -> None:
    await kind.run_jobs([10] * 3)
    kind.number, kind.version = 99, 0
    await kind.say(*events)
    assert await kind.estimate() is None


async def test_a_second_attempt_is_estimated_from_its_own_beginning(kind: Kind) -> None:
    await kind.run_jobs([10] * 3)
    await kind.begin()
    kind.clock.jump_wall(100)
    await kind.say(e.AttemptFailed(1, "io", True, kind.clock.now_us()), started_again)
    kind.clock.jump_wall(2)
    assert await kind.estimate() == Estimate(8, 8, "usual")
