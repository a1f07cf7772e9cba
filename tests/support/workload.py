"""The program of tests/log/test_sqlite_writer.py: its processes are killed, or their disk fails.

    python -m tests.support.workload MODE PATH COUNT

groups    COUNT groups of appends, then single ones until one succeeds
die       the same, but killed right after the first refusal
close     the same, but closed after the first that did not succeed
lines     a group for each line of the standard input
jobs      a service, to which a group of jobs is submitted for each line; at the end of the input it
          waits until every job that was not refused has ended

It prints a line for each outcome at once: the outcome, the job, and its group.
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

#: Concurrent appends, which become one transaction.
GROUP = 8


async def main(mode: str, path: Path, count: int) -> None:
    logging.basicConfig(stream=sys.stdout)
    if mode == "jobs":
        await jobs(path)
        return
    log = await SQLiteLog.open(path)
    report("open", log.log_id, 0)
    first = log.head * 1000  # beyond the numbers of earlier runs
    # The reading connection opens a log that has events, as in a service. Then the writer's is not
    # the last one to close: it neither checkpoints nor removes the WAL.
    await log.read(0, 1)
    async for group in lines() if mode == "lines" else numbers_to(count):
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
    report("closed", "", 0)


async def numbers_to(count: int) -> AsyncIterator[int]:
    for group in range(count):
        yield group


async def lines() -> AsyncIterator[int]:
    group = 0
    while await asyncio.to_thread(sys.stdin.readline):
        yield group
        group += 1


async def append(log: SQLiteLog, number: int, group: int) -> str:
    event = JobSubmitted(JobSpec("test", "x" * (number * 397 % 5000)))
    return await print_outcome(log.append(job_id(number), 0, event, actor="tester"), number, group)


async def print_outcome(writing: Awaitable[object], number: int, group: int) -> str:
    try:
        await writing
        answer = "ok"
    except LogUnavailable:
        answer = "no"
    except OutcomeUnknown:
        answer = "unknown"
    except LogError as error:
        answer = error.code
    report(answer, job_id(number), group)
    return answer


async def jobs(path: Path) -> None:
    # Imported here, because the other modes start in half the time without it.
    from eventjobs.handlers.context import Context
    from eventjobs.handlers.declare import handler
    from eventjobs.service import Service
    from eventjobs.settings import Settings

    @handler("slow")
    async def slow(context: Context, payload: Any) -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    async with Service(path.parent, [slow], settings=Settings(concurrency=3)) as service:
        report("open", service.log.log_id, 0)
        maybe: list[int] = []
        async for group in lines():
            numbers = range(group * GROUP, (group + 1) * GROUP)
            answers = await asyncio.gather(
                *(
                    print_outcome(service.submit("slow", job_id=job_id(n)), n, group)
                    for n in numbers
                )
            )
            maybe += [n for n, answer in zip(numbers, answers, strict=True) if answer != "no"]
        for number in maybe:
            with suppress(JobNotFound):
                await service.wait(job_id(number))
    report("closed", "", 0)


def job_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def report(*words: object) -> None:
    """Print a line at once and in one write: the process may end right after."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
