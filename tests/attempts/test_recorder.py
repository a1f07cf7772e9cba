"""An outcome is recorded in the same way for every kind of worker."""

import pytest

from eventjobs.attempts.recorder import RETRY_AFTER_MAX_S
from eventjobs.domain.outcomes import Failed
from tests.conftest import Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.limited_jobs import free


@pytest.mark.parametrize(
    ("retry_after_s", "delay_s"), [(-5.0, 0), (0.5, 0.5), (1e14, RETRY_AFTER_MAX_S)]
)
async def test_a_retry_is_due_neither_before_its_failure_nor_after_the_longest_delay(
    serve: Serve, clock: FakeClock, retry_after_s: float, delay_s: float
) -> None:
    service = await serve(free, clock=clock, concurrency=0)
    submitted = await service.submit("free", max_attempts=2)
    started = await service.jobs.start(submitted.job_id, worker="w")
    failed = Failed("busy", "later", retry_after_s=retry_after_s)
    job = await service.recorder.record(started, failed, actor="w")
    assert job.due_us == clock.now_us() + int(delay_s * SECOND)
