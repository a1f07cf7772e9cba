"""The process pool of the standard library: the raw limit of jobs in processes."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import orjson

from .processes import Answer, Children, Stopwatch, now_s, run


def nothing(message: bytes) -> bytes:
    """Parses and returns JSON, as a job does."""
    orjson.loads(message)
    return b"null"


def pool(directory: str, seconds: float, in_flight: int) -> Answer:
    """Calls a second, always *in_flight* concurrently."""

    async def work() -> Answer:
        loop = asyncio.get_running_loop()
        spawning = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(mp_context=spawning) as executor:

            async def call(until_s: float) -> int:
                count = 0
                while now_s() < until_s:
                    await loop.run_in_executor(executor, nothing, b'{"n":1}')
                    count += 1
                return count

            async def through(duration_s: float) -> int:
                until_s = now_s() + duration_s
                return sum(await asyncio.gather(*(call(until_s) for _ in range(in_flight))))

            await through(seconds / 4)
            with Stopwatch() as watch:
                count = await through(seconds)
        return watch.sample(count)

    return run(work())


CHILDREN: Children = {"pool": pool}
