"""Batches concurrent calls into one request and returns each caller its own result."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Send = Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]]


class Batcher(Generic[Item, Result]):
    """*send* gets up to *batch_max* items; it returns a result or an exception for each, in order.

    There is one request at a time. Items submitted during a request go with the next one: batches
    are small under light load and large under heavy load.
    """

    def __init__(self, send: Send[Item, Result], batch_max: int) -> None:
        self._send = send
        self._batch_max = batch_max
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result of *item*. Raises the exception that *send* raises, or returns for it."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._sender is None or self._sender.done():
            # The task begins after this iteration of the loop, with all items submitted in it. Its
            # context is empty, since it also sends items of other callers.
            self._sender = asyncio.create_task(self._send_all(), name="batcher", context=Context())
        return await result

    async def _send_all(self) -> None:
        while self._waiting:
            count = min(len(self._waiting), self._batch_max)
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                outcomes = await self._send([item for item, _ in batch])
            except asyncio.CancelledError:
                for _, result in (*batch, *self._waiting):
                    result.cancel()
                raise
            except Exception as error:  # noqa: BLE001  raised in the callers
                outcomes = [error] * count
            for (_, result), outcome in zip(batch, outcomes, strict=True):
                if result.done():
                    continue  # its caller was cancelled
                if isinstance(outcome, BaseException):
                    result.set_exception(outcome)
                else:
                    result.set_result(outcome)
