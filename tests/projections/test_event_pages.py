"""Pages of the log by type and owner: what is skipped has no event of such a job."""

import random
from pathlib import Path

import pytest

from eventjobs.domain.events import JobSubmitted, LogWritten
from eventjobs.domain.spec import JobSpec
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.projections import Views, event_pages
from tests.support.histories import job_id

TYPES = ("a", "b", "c")
OWNERS = (None, "ann", "bob")


async def fill(log: SQLiteLog, rng: random.Random) -> list[JobSpec]:
    """The specifications of the jobs of all events, in the order of the log."""
    specs: list[JobSpec] = []
    versions: dict[int, tuple[int, JobSpec]] = {}
    for number in range(12):
        spec = JobSpec(TYPES[number // 4], owner=OWNERS[number % 3])
        await log.append(job_id(number), 0, JobSubmitted(spec), actor="tester")
        versions[number] = 1, spec
        specs.append(spec)
        for _ in range(rng.randrange(20)):
            at = rng.choice(sorted(versions)[-3:])
            version, of = versions[at]
            line = LogWritten(1, "info", "x")
            await log.append(job_id(at), version, line, actor="tester")
            versions[at] = version + 1, of
            specs.append(of)
    return specs


@pytest.mark.parametrize("seed", range(3))
async def test_no_event_that_matches_is_skipped_and_few_others_are_not(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_pages, "PAGE_EVENTS", size := 8)
    log = await SQLiteLog.open(tmp_path / "log.db")
    specs = await fill(log, random.Random(seed))
    views = await Views.open(tmp_path / "views.db", log)
    await follow(views, log)
    for types in (None, {"a"}, {"b", "c"}, {"z"}, set[str]()):
        for owner in (None, "ann", "zoe"):
            for after in range(log.head + 1):
                upto = await views.skip_events(after, types, owner)
                matching = [
                    position
                    for position, spec in enumerate(specs, 1)
                    if (types is None or spec.type in types)
                    and (owner is None or spec.owner == owner)
                ]
                assert not [each for each in matching if after < each <= upto]
                if types is None and owner is None:
                    assert upto == after
                elif owner is None or types is None:
                    pages = {(each - 1) // size for each in matching if each > after - after % size}
                    assert upto == max(after, min(pages) * size if pages else log.head)
    await views.close()
    await log.close()


async def follow(views: Views, log: SQLiteLog) -> None:
    """Apply what the views do not have yet."""
    while views.position < log.head:
        await views._apply(await log.read(views.position))


async def test_with_a_parked_event_no_page_is_skipped(tmp_path: Path) -> None:
    """It may be the first event of a job, which the views then do not know."""
    log = await SQLiteLog.open(tmp_path / "log.db")
    await log.append(job_id(0), 0, JobSubmitted(JobSpec("a")), actor="tester")
    views = await Views.open(tmp_path / "views.db", log)
    await follow(views, log)
    assert await views.skip_events(0, {"b"}, None) == 1
    await views._current.store._writer.execute_fetchall(
        "INSERT INTO parked VALUES (1, 'x', 'JobSubmitted', 'why')"
    )
    await views._current.store._writer.commit()
    assert await views.skip_events(0, {"b"}, None) == 0
    await views.close()
    await log.close()
