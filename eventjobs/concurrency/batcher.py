"""What many say at the same time goes as one request; each of them gets an answer of its own."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Said = TypeVar("Said")
Answer = TypeVar("Answer")

Send = Callable[[Sequence[Said]], Awaitable[Sequence[Answer | BaseException]]]


class Batcher(Generic[Said, Answer]):
    """*send* is given up to *at_once* of what was said; it returns as many answers, in order.

    One request is under way at a time. What is said meanwhile goes with the next: alone while
    there is little to say, and many together when that makes a difference.
    """

    def __init__(self, send: Send[Said, Answer], at_once: int) -> None:
        self._send = send
        self._at_once = at_once
        self._waiting: deque[tuple[Said, asyncio.Future[Answer]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def submit(self, said: Said) -> Answer:
        """What was answered. Raises what *send* raises, or returns in place of this answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((said, answer))
        if self._sender is None or self._sender.done():
            # It begins after this turn of the loop: what others say in it is there by then.
            # In an empty context: it sends for others than the one that is the first to say it.
            self._sender = asyncio.create_task(self._send_all(), name="together", context=Context())
        return await answer

    async def _send_all(self) -> None:
        while self._waiting:
            count = min(len(self._waiting), self._at_once)
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                told = await self._send([said for said, _ in batch])
            except asyncio.CancelledError:
                for _, answer in (*batch, *self._waiting):
                    answer.cancel()
                raise
            except Exception as error:  # noqa: BLE001  whoever waits for it knows what it means
                told = [error] * count
            for (_, answer), each in zip(batch, told, strict=True):
                if answer.done():
                    continue  # nobody waits for it any longer
                if isinstance(each, BaseException):
                    answer.set_exception(each)
                else:
                    answer.set_result(each)
