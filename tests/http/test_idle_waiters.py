"""Who waits for other jobs costs nothing: what happens to a job enters no code of theirs."""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack
from types import CodeType, FrameType
from typing import Any

from eventjobs.attempts.remote_claims import RemoteClaims
from eventjobs.handlers.declare import remote
from eventjobs.http.polls import poll
from eventjobs.http.streams.catch_up import EventCatchUp, SnapshotCatchUp
from eventjobs.http.streams.feed import Feed
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.live_followers import LiveFollowers
from tests.conftest import Connect
from tests.support.http_client import Client, Reply
from tests.support.http_jobs import HANDLERS
from tests.support.remote_worker import claim, wait_for_claims
from tests.support.waiting import turns, until

#: Of each kind.
WAITERS = 5
#: What a waiter runs when it is woken, and what asks whether a change concerns it. A coroutine is
#: entered again whenever it goes on.
CODE_OF_WAITERS: dict[CodeType, str] = {
    function.__code__: function.__qualname__
    for function in (
        RemoteClaims.claim,
        poll,
        Feed._serve,
        EventCatchUp._read,
        SnapshotCatchUp._read,
        JobFilter.matches,
        LiveFollowers.offer,
    )
}


class Entered:
    """Counts how often the code of waiters is entered within `with`."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    def _count(self, frame: FrameType, kind: str, _: Any) -> None:
        if kind == "call" and (name := CODE_OF_WAITERS.get(frame.f_code)) is not None:
            self.counts[name] += 1

    def __enter__(self) -> Counter[str]:
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self.counts

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)


async def begin_to_wait(
    api: Client, job_id: str, streaming: AsyncExitStack
) -> list["asyncio.Task[Reply]"]:
    """Wait for the job *job_id* or for its type in every way; the polls."""
    head = api.service.log.head
    polls = (
        f"/v1/events?after={head}&wait=20&type=far",
        f"/v1/events?after={head}&wait=20&id={job_id}",
        f"/v1/jobs/{job_id}/events?after={head}&wait=20",
    )
    streams = (
        f"/v1/events?after={head}&type=far",
        f"/v1/jobs/{job_id}/events?after={head}",
        "/v1/jobs?type=far",
        "/v1/jobs?tag=far",
        f"/v1/jobs/{job_id}",
    )
    state = {"Prefer": "wait=20", "If_None_Match": '"1"'}
    waiting = []
    for _ in range(WAITERS):
        waiting += [asyncio.create_task(api.get(path)) for path in polls]
        waiting.append(asyncio.create_task(api.get(f"/v1/jobs/{job_id}", **state)))
        for path in streams:
            stream = api.session.get(path, headers={"Accept": "text/event-stream"})
            assert (await streaming.enter_async_context(stream)).status == 200
    context = api.listening.context
    await until(lambda: len(context.long_polls) == WAITERS * 4)
    await until(lambda: len(context.streams._events.broadcaster._all()) == WAITERS * 4)
    await until(lambda: len(context.streams._snapshots.broadcaster._all()) == WAITERS * 3)
    return waiting


async def test_changes_that_do_not_concern_them_enter_no_code_of_waiters(client: Connect) -> None:
    api = await client(*HANDLERS, remote("far"), remote("near"))
    job = await api.submit("far", tags=["far"])
    await api.service.views.wait_for_position(api.service.log.head)
    async with AsyncExitStack() as streaming:
        polls = await begin_to_wait(api, job["job_id"], streaming)
        await check_changes(api, job["job_id"], polls)


async def check_changes(api: Client, job_id: str, polls: list["asyncio.Task[Reply]"]) -> None:
    workers = []
    for number in range(WAITERS):
        workers.append(asyncio.create_task(claim(api, f"w{number}", ("near",), wait_s=20)))
        await wait_for_claims(api, f"w{number}")
    await turns()

    with Entered() as counts:
        for _ in range(10):
            other = await api.service.submit("echo", {"n": 1}, tags=("tag",))
            await api.service.wait(other.job_id)
        await api.service.views.wait_for_position(api.service.log.head)
        await turns()
    assert not counts

    with Entered() as counts:
        await api.submit("near")
        await api("POST", f"/v1/jobs/{job_id}/cancel")
        assert {reply.status for reply in await asyncio.gather(*polls)} == {200}
        _, others = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        await turns()
    assert counts["poll"] >= len(polls)
    assert set(counts) >= {"RemoteClaims.claim", "Feed._serve", "LiveFollowers.offer"}
    assert len(others) == WAITERS - 1
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
