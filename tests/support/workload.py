"""What tests/test_log_faults.py runs in processes that are killed, or whose disk fails.

    python -m tests.support.workload MODE PATH COUNT

groups    COUNT groups of appends, then single ones until one succeeds
die       the same, but killed right after the first refusal
close     the same, but closed after the first that did not succeed
asked     a group for each line of the standard input
jobs      a service, to which a group of jobs is submitted for each line; at the end of them it
          waits until every job that may be there has ended

It prints a line for each answer as it comes: the outcome, the job, and its group.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobNotFound, LogError, LogUnavailable, OutcomeUnknown
from eventjobs.log.sqlite import SQLiteLog

#: Appends that wait together, and so become one transaction.
GROUP = 8


async def main(mode: str, path: Path, count: int) -> None:
    logging.basicConfig(stream=sys.stdout)
    if mode == "jobs":
        await jobs(path)
        return
    log = await SQLiteLog.open(path)
    tell("open", log.log_id, 0)
    first = log.head * 1000  # beyond all that runs before this one tried
    async for group in asked() if mode == "asked" else counted(count):
        numbers = range(first + group * GROUP, first + (group + 1) * GROUP)
        answers = await asyncio.gather(*(append(log, number, group) for number in numbers))
        if mode == "die" and "no" in answers:
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "close" and answers != ["ok"] * GROUP:
            break
    number = first + count * GROUP
    while mode == "groups" and await append(log, number, number) != "ok":
        number += 1
    await log.close()
    tell("closed", "", 0)


async def counted(count: int) -> AsyncIterator[int]:
    for group in range(count):
        yield group


async def asked() -> AsyncIterator[int]:
    group = 0
    while await asyncio.to_thread(sys.stdin.readline):
        yield group
        group += 1


async def append(log: SQLiteLog, number: int, group: int) -> str:
    event = JobSubmitted(JobSpec("test", "x" * (number * 397 % 5000)))
    return await answered(log.append(job_id(number), 0, event, actor="tester"), number, group)


async def answered(writing: Awaitable[object], number: int, group: int) -> str:
    try:
        await writing
        answer = "ok"
    except LogUnavailable:
        answer = "no"
    except OutcomeUnknown:
        answer = "unknown"
    except LogError as error:
        answer = error.code
    tell(answer, job_id(number), group)
    return answer


async def jobs(path: Path) -> None:
    # Imported here, because the other modes start in half the time without.
    from eventjobs.handlers.context import Context
    from eventjobs.handlers.declare import handler
    from eventjobs.service import Service
    from eventjobs.settings import Settings

    @handler("slow")
    async def slow(context: Context, payload: Any) -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    async with Service(path.parent, [slow], settings=Settings(concurrency=3)) as service:
        tell("open", service.log.log_id, 0)
        maybe: list[int] = []
        async for group in asked():
            numbers = range(group * GROUP, (group + 1) * GROUP)
            answers = await asyncio.gather(
                *(answered(service.submit("slow", job_id=job_id(n)), n, group) for n in numbers)
            )
            maybe += [n for n, answer in zip(numbers, answers, strict=True) if answer != "no"]
        for number in maybe:
            with suppress(JobNotFound):
                await service.wait(job_id(number))
    tell("closed", "", 0)


def job_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def tell(*words: object) -> None:
    """At once and in one piece: the process may end right after."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
