"""The jobs of an order in memory, and a read of those behind them."""

from eventjobs.attempts.ready_window import NOTHING_READ, Rank, ReadyWindow, WindowSize, by_rank
from eventjobs.projections.queue import WaitingJob
from tests.support.histories import job_id

SIZE = 3


def waiting_job(rank: int) -> WaitingJob:
    return WaitingJob(rank, job_id(rank), "csv", "default", None, rank, rank, later=False)


def page_of(table: list[WaitingJob], begin: Rank) -> list[WaitingJob]:
    return [each for each in table if by_rank(each) > begin][:SIZE]


def take_all(window: ReadyWindow, table: list[WaitingJob]) -> list[int]:
    """The ranks of all jobs, in the order in which they come."""
    ranks = []
    while not window.is_used_up:
        if (job := window.first()) is None:
            begin = window.begin_read()
            window.end_read(begin, page_of(table, begin), SIZE, set())
        else:
            ranks.append(job.rank)
            window.discard(job.job_id)
    return ranks


def test_a_window_that_is_cut_during_a_read_is_read_on_from_where_it_was_cut() -> None:
    """What was read is behind that. The jobs between were left to the table."""
    table = [waiting_job(rank) for rank in range(10, 19)]
    window = ReadyWindow(("line", "csv", "default"), by_rank, WindowSize(SIZE, SIZE), NOTHING_READ)
    begin = window.begin_read()
    window.end_read(begin, page_of(table, begin), SIZE, set())
    begin = window.begin_read()
    page = page_of(table, begin)
    first, second, *others = [waiting_job(rank) for rank in range(SIZE + 1)]
    for each in (first, second, *others):
        window.put(each)
    for each in (first, second):
        window.discard(each.job_id)
    window.end_read(begin, page, SIZE, set())
    assert take_all(window, others + table) == [each.rank for each in others + table]
