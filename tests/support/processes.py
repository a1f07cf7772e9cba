"""Processes of handlers: their first report, their end, their results."""

import asyncio
import os
import select
from typing import Any

from eventjobs.domain.events import LogWritten
from eventjobs.service import Service
from tests.support.waiting import events_of


async def first_report(service: Service, job_id: str) -> dict[str, Any]:
    """Wait for the first line of a handler; its fields: the pid of its process, and more."""
    while True:
        head = service.log.head
        for each in await events_of(service, job_id):
            if isinstance(each, LogWritten) and each.message == "begun":
                assert isinstance(each.fields, dict)
                return each.fields
        await service.log.wait(head, job_id)


def wait_until_gone(pid: int) -> None:
    """Wait until the process has ended. It need not be a child of this one."""
    try:
        ending = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([ending], [], [], 20)[0], f"process {pid} goes on"
    finally:
        os.close(ending)


async def until_gone(pid: int) -> None:
    await asyncio.to_thread(wait_until_gone, pid)


async def result_of(service: Service, type: str, payload: Any = None) -> Any:
    job = await service.wait((await service.submit(type, payload)).job_id)
    assert job.status == "completed", job.error
    return job.result
