"""The log read window by window, with the next window read ahead."""

import asyncio

import pytest

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import read_ahead
from eventjobs.projections.read_ahead import ReadAhead
from tests.support.memory_log import MemoryLog

PAGE, WINDOW = 5, 20


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "PAGE", PAGE)
    monkeypatch.setattr(read_ahead, "FIRST_PAGE", PAGE)
    monkeypatch.setattr(read_ahead, "WINDOW", WINDOW)


class PagedLog(MemoryLog):
    """A log that notes the sizes of the pages that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []

    async def read(self, after: int, limit: int = WINDOW) -> list[Recorded]:
        page = await super().read(after, limit)
        self.pages.append(len(page))
        return page


async def log_of(count: int, payload: object = None) -> PagedLog:
    log = PagedLog()
    for number in range(count):
        event = JobSubmitted(JobSpec("work", payload))
        await log.append(f"job-{number}", 0, event, actor="test")
    return log


async def test_every_event_comes_once_and_in_order_wherever_the_reader_goes() -> None:
    log = await log_of(2 * WINDOW + 7)
    with ReadAhead(log) as ahead:
        first = await ahead.read(0)
        assert [each.position for each in first] == list(range(1, WINDOW + 1))
        # The window that was read ahead is not the requested one.
        again = await ahead.read(WINDOW - 2, 5)
        assert [each.position for each in again] == list(range(WINDOW - 1, WINDOW + 4))
        rest = await ahead.read(WINDOW)
        last = await ahead.read(2 * WINDOW)
        assert [each.position for each in rest + last] == list(range(WINDOW + 1, 2 * WINDOW + 8))
        assert await ahead.read(2 * WINDOW + 7) == []


async def test_the_next_window_is_read_while_the_one_before_is_worked_on_and_no_longer() -> None:
    log = await log_of(2 * WINDOW)
    with ReadAhead(log) as ahead:
        await ahead.read(0)
        [reading] = [each for each in asyncio.all_tasks() if each.get_name() == "read ahead"]
    await asyncio.wait({reading})
    assert reading.cancelled()


async def test_near_the_head_nothing_is_read_ahead() -> None:
    log = await log_of(WINDOW + PAGE - 1)
    with ReadAhead(log) as ahead:
        await ahead.read(0)
        assert "read ahead" not in {each.get_name() for each in asyncio.all_tasks()}


async def test_a_window_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large events come in small pages after the first, and in small windows."""
    monkeypatch.setattr(read_ahead, "WINDOW_BYTES", 80_000)
    log = await log_of(3 * WINDOW, "x" * 10_000)
    read: list[Recorded] = []
    with ReadAhead(log) as ahead:
        while window := await ahead.read(len(read)):
            assert len(window) < 10
            read += window
    assert [each.position for each in read] == list(range(1, 3 * WINDOW + 1))
    assert max(log.pages[1:]) == 1


async def test_pages_grow_again_after_large_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "WINDOW_BYTES", 80_000)
    log = await log_of(WINDOW, "x" * 100_000)
    for number in range(WINDOW):
        event = JobSubmitted(JobSpec("work"))
        await log.append(f"small-{number}", 0, event, actor="test")
    with ReadAhead(log) as ahead:
        position = 0
        while window := await ahead.read(position):
            position += len(window)
    assert position == 2 * WINDOW
    assert max(log.pages[-4:]) == PAGE
