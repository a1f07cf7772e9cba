"""Concurrent calls go as one request, and each caller gets its own result."""

import asyncio
from collections.abc import Sequence

import pytest

from eventjobs.concurrency.batcher import Batcher
from tests.support.waiting import turns


class Service:
    """Answers each with its double when it is let; zero is refused, and less is a disaster."""

    def __init__(self) -> None:
        self.heard: list[list[int]] = []
        self.open = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int | BaseException]:
        self.heard.append(list(items))
        await self.open.wait()
        if min(items) < 0:
            raise ConnectionError
        return [each * 2 if each else ValueError("zero") for each in items]


@pytest.fixture
def service() -> Service:
    return Service()


async def test_what_is_said_at_the_same_time_goes_as_one(service: Service) -> None:
    together = Batcher(service, 10)
    service.open.set()
    assert await asyncio.gather(*map(together.submit, [1, 2, 3])) == [2, 4, 6]
    assert await together.submit(4) == 8
    assert service.heard == [[1, 2, 3], [4]]


async def test_what_is_said_meanwhile_goes_with_the_next_but_not_too_much(
    service: Service,
) -> None:
    together = Batcher(service, 3)
    saying = []
    for each in range(1, 6):
        saying.append(asyncio.create_task(together.submit(each)))
        await turns()
    assert service.heard == [[1]]
    service.open.set()
    assert await asyncio.gather(*saying) == [2, 4, 6, 8, 10]
    assert service.heard == [[1], [2, 3, 4], [5]]


async def test_who_is_refused_takes_nobody_along(service: Service) -> None:
    together = Batcher(service, 10)
    service.open.set()
    saying = [together.submit(each) for each in (1, 0, 2)]
    first, refused, last = await asyncio.gather(*saying, return_exceptions=True)
    assert (first, last) == (2, 4)
    assert isinstance(refused, ValueError)


async def test_a_request_that_fails_is_told_to_all_of_it_and_to_nobody_else(
    service: Service,
) -> None:
    together = Batcher(service, 2)
    service.open.set()
    saying = [together.submit(each) for each in (1, -1, 2)]
    *failed, other = await asyncio.gather(*saying, return_exceptions=True)
    assert [type(each) for each in failed] == [ConnectionError, ConnectionError]
    assert other == 4


async def test_who_waits_no_longer_is_not_answered(service: Service) -> None:
    together = Batcher(service, 10)
    saying = [asyncio.create_task(together.submit(each)) for each in (1, 2)]
    await turns()
    saying[0].cancel()
    service.open.set()
    assert await saying[1] == 4
    assert saying[0].cancelled()


async def test_when_the_sender_is_cancelled_nobody_waits_for_ever(service: Service) -> None:
    together = Batcher(service, 1)
    saying = [asyncio.create_task(together.submit(each)) for each in (1, 2)]
    await turns()
    assert together._sender is not None
    together._sender.cancel()
    await asyncio.wait(saying)
    assert [each.cancelled() for each in saying] == [True, True]
