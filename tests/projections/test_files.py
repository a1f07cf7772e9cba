"""The files that the jobs of an owner have."""

from eventjobs.domain.events import ArtifactStored, AttemptStarted, Event, JobExpired, JobSubmitted
from eventjobs.domain.spec import Artifact, JobSpec
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.views import quick_folder, running

GIVEN, MADE, FOREIGN = "a" * 64, "b" * 64, "c" * 64


async def test_an_owner_has_the_files_that_a_job_was_given_and_those_that_it_made(
    clock: FakeClock,
) -> None:
    """Also when they come in different batches, and after the job is hidden."""
    log = MemoryLog(clock)

    async def record(number: int, version: int, event: Event) -> None:
        await log.append(job_id(number), version, event, actor="tester")
        await views.wait_for_position(log.head)

    async def files_of(owner: str) -> list[str]:
        return [each for each in (GIVEN, MADE, FOREIGN) if await views.owns_file(owner, each)]

    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            given = JobSpec("echo", owner="ann", artifacts=(Artifact("in.txt", GIVEN, 1),))
            await record(1, 0, JobSubmitted(given))
            assert await files_of("ann") == [GIVEN]
            await record(1, 1, AttemptStarted(1, "worker"))
            await record(1, 2, ArtifactStored(1, "out.txt", MADE, 1, "text/plain"))
            of_none = JobSpec("echo", artifacts=(Artifact("in.txt", FOREIGN, 1),))
            await record(2, 0, JobSubmitted(of_none))
            assert await files_of("ann") == [GIVEN, MADE]
            assert await files_of("bob") == await files_of("") == []
            await record(1, 3, JobExpired("deleted"))
            assert await files_of("ann") == [GIVEN, MADE]
            await views.rebuild()
            assert await files_of("ann") == [GIVEN, MADE]
