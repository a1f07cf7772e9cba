"""The log read page by page, with the next page read ahead."""

import asyncio

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.read_ahead import PAGE, ReadAhead
from tests.support.memory_log import MemoryLog


async def log_of(count: int) -> MemoryLog:
    log = MemoryLog()
    for number in range(count):
        await log.append(f"job-{number}", 0, JobSubmitted(JobSpec("work")), actor="test")
    return log


async def test_every_event_comes_once_and_in_order_wherever_the_reader_goes() -> None:
    log = await log_of(2 * PAGE + 7)
    with ReadAhead(log) as ahead:
        first = await ahead.read(0)
        assert [each.position for each in first] == list(range(1, PAGE + 1))
        # The page that was read ahead is not the requested one.
        again = await ahead.read(PAGE - 2, 5)
        assert [each.position for each in again] == list(range(PAGE - 1, PAGE + 4))
        rest = await ahead.read(PAGE)
        last = await ahead.read(2 * PAGE)
        assert [each.position for each in rest + last] == list(range(PAGE + 1, 2 * PAGE + 8))
        assert await ahead.read(2 * PAGE + 7) == []


async def test_the_next_page_is_read_while_the_one_before_it_is_worked_on_and_no_longer() -> None:
    log = await log_of(2 * PAGE)
    with ReadAhead(log) as ahead:
        await ahead.read(0)
        [reading] = [each for each in asyncio.all_tasks() if each.get_name() == "read ahead"]
    await asyncio.wait({reading})
    assert reading.cancelled()


async def test_near_the_head_nothing_is_read_ahead() -> None:
    log = await log_of(PAGE + 1)
    with ReadAhead(log) as ahead:
        await ahead.read(0)
        assert "read ahead" not in {each.get_name() for each in asyncio.all_tasks()}
