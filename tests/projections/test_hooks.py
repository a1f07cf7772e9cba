"""The views name each hook that has something left to do, however the log is cut into batches."""

from typing import Any

import pytest

from eventjobs.domain import events as e
from eventjobs.domain.hook_results import hook_type
from eventjobs.domain.ids import hook_id
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.hooks import PendingHook
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.views import quick_folder, running

JOB = job_id(1)
HOOK = hook_id(JOB, "story")
HOOK_SPEC = JobSpec(hook_type("csv", "story"), {"job": JOB, "hook": "story"}, max_attempts=1)

other = (job_id(2), e.JobSubmitted(JobSpec("csv")))
submitted = (JOB, e.JobSubmitted(JobSpec("csv", max_attempts=1, hooks=("story",))))
started = (JOB, e.AttemptStarted(1, "worker"))
completed = (JOB, e.JobCompleted(1))
hook_submitted = (HOOK, e.JobSubmitted(HOOK_SPEC))
hook_started = (HOOK, e.AttemptStarted(1, "worker"))
hook_failed = (HOOK, e.AttemptFailed(1, "busy", False))
recorded = (JOB, e.HookFailed("story", "busy"))
hook_retried = (HOOK, e.JobRetried())
hook_restarted = (HOOK, e.AttemptStarted(2, "worker"))
hook_completed = (HOOK, e.JobCompleted(2, {"id": "7", "url": None}))
linked = (JOB, e.HookCompleted("story", "7"))

#: Each event, and what is pending after it: None, a submission, or an end that is to be recorded.
HISTORY: list[tuple[tuple[str, e.Event], bool | None]] = [
    (other, None),
    (submitted, None),
    (started, None),
    (completed, False),
    (hook_submitted, None),
    (hook_started, None),
    (hook_failed, True),
    (recorded, None),
    (hook_retried, None),
    (hook_restarted, None),
    (hook_completed, True),
    (linked, None),
]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
async def test_pending_hooks_are_those_with_something_left_to_do(size: int) -> None:
    log = MemoryLog()
    versions: dict[str, int] = {}
    with quick_folder() as folder:
        async with running(folder / "views.db", log, FakeClock()) as views:
            for begin in range(0, len(HISTORY), size):
                batch = HISTORY[begin : begin + size]
                for (id, event), _ in batch:
                    await log.append(id, versions.get(id, 0), event, actor="test")
                    versions[id] = versions.get(id, 0) + 1
                await views.wait_for_position(log.head)
                pending: Any = batch[-1][1]
                expected = [] if pending is None else [PendingHook(HOOK, JOB, "story", pending)]
                assert await views.pending_hooks(10) == expected
