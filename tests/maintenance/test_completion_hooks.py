"""A completion hook makes one record of each completed job, also after failures and kills."""

import asyncio
import shutil
import signal
import sqlite3
from copy import copy
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import orjson
import pytest

from eventjobs import CompletedJob, Context, JobError, handler, on_completion
from eventjobs.domain.events import HookCompleted, HookFailed, JobSubmitted
from eventjobs.domain.hook_results import HookResult, hook_type
from eventjobs.domain.ids import hook_id
from eventjobs.domain.job import Job
from eventjobs.errors import DiskFull, InvalidInput
from eventjobs.handlers.hooks import CompletionHook
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.log import NewEvent
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.servers import serving, start
from tests.support.waiting import job_when, kinds, recorded_of, time_passing

ID = "00000000-0000-4000-8000-000000000001"
STORY = hook_type("analyze", "story")


@handler("analyze")
async def analyze(context: Context, payload: Any) -> Any:
    return {"rows": payload}


@handler("plain")
async def plain(context: Context, payload: Any) -> Any:
    return payload


class Stories:
    """The seed's example: a story of each job, and the number of a user's stories."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[CompletedJob] = []
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE stories (job_id TEXT PRIMARY KEY, owner TEXT, rows INTEGER)")
            db.execute("CREATE TABLE users (name TEXT PRIMARY KEY, stories INTEGER)")
            db.execute("INSERT INTO users VALUES ('ann', 0)")

    def save(self, job: CompletedJob) -> dict[str, str]:
        self.calls.append(job)
        with sqlite3.connect(self.path) as db:  # one transaction
            added = db.execute(
                "INSERT OR IGNORE INTO stories VALUES (?, ?, ?)",
                (job.job_id, job.owner, job.result["rows"]),
            )
            if added.rowcount:
                db.execute("UPDATE users SET stories = stories + 1 WHERE name = ?", (job.owner,))
        return {"id": job.job_id, "url": f"/stories/{job.job_id}"}

    def counts(self) -> tuple[int, int]:
        """The number of stories, and the number that the user has."""
        with sqlite3.connect(self.path) as db:
            [[stories]] = db.execute("SELECT count(*) FROM stories")
            [[of_user]] = db.execute("SELECT stories FROM users")
        return stories, of_user


@pytest.fixture
def stories(tmp_path: Path) -> Stories:
    return Stories(tmp_path / "stories.db")


def hook(function: Any, **options: Any) -> CompletionHook:
    return on_completion("analyze", name="story", **options)(function)


async def over(service: Service, job_id: str) -> Job:
    return await service.wait(job_id, hooks=True)


async def test_a_record_is_made_and_linked(serve: Serve, stories: Stories) -> None:
    service = await serve(analyze, hook(stories.save))
    job_id = (await service.submit("analyze", 3, owner="ann", tags=["a"])).job_id
    job = await over(service, job_id)
    assert job.hooks == (HookResult("story", job_id, f"/stories/{job_id}"),)
    assert stories.counts() == (1, 1)
    [call] = stories.calls
    assert (call.job_id, call.type, call.owner, call.payload) == (job_id, "analyze", "ann", 3)
    assert (call.result, call.tags) == ({"rows": 3}, ("a",))
    assert (await kinds(service, job_id)).endswith("JobCompleted HookCompleted")
    own = await service.wait(hook_id(job_id, "story"))
    assert (own.spec.type, own.spec.owner) == (STORY, "ann")


async def test_a_type_without_hooks_has_no_further_events(serve: Serve, stories: Stories) -> None:
    service = await serve(analyze, plain, hook(stories.save))
    job_id = (await service.submit("plain", 3)).job_id
    await service.wait(job_id)
    await over(service, (await service.submit("analyze", 3)).job_id)
    assert await kinds(service, job_id) == "JobSubmitted AttemptStarted JobCompleted"
    assert len(stories.calls) == 1


async def test_an_async_hook_may_return_only_an_id(serve: Serve) -> None:
    async def save(job: CompletedJob) -> int:
        return 17

    service = await serve(analyze, hook(save))
    job = await over(service, (await service.submit("analyze")).job_id)
    assert job.hooks == (HookResult("story", "17"),)


async def test_a_hook_is_retried_and_links_once(
    serve: Serve, stories: Stories, clock: FakeClock
) -> None:
    """The record is made, and then the hook fails: the next call finds it."""
    failures = [JobError("busy", "The database is busy."), ConnectionError("reset")]

    def save(job: CompletedJob) -> Any:
        record = stories.save(job)
        if failures:
            raise failures.pop()
        return record

    service = await serve(analyze, hook(save), clock=clock)
    job_id = (await service.submit("analyze", 1, owner="ann")).job_id
    await time_passing(clock, over(service, job_id))
    assert len(stories.calls) == 3
    assert stories.counts() == (1, 1)
    assert len(await recorded_of(service, job_id, HookCompleted)) == 1


async def test_a_hook_that_fails_for_good_leaves_the_job_completed(serve: Serve) -> None:
    healthy = False

    async def save(job: CompletedJob) -> str:
        if not healthy:
            raise JobError("no_such_user", "There is no user ann.", retryable=False)
        return "7"

    service = await serve(analyze, hook(save))
    job_id = (await service.submit("analyze", 1)).job_id
    job = await over(service, job_id)
    assert job.status == "completed"
    [result] = job.hooks
    assert result.error == {"code": "no_such_user", "message": "There is no user ann."}
    # An operator mends the cause, and retries the hook's job.
    healthy = True
    await service.jobs.retry(hook_id(job_id, "story"), actor="operator")
    job = await job_when(service, job_id, lambda job: job.hooks[0].error is None)
    assert job.hooks == (HookResult("story", "7"),)
    assert (await kinds(service, job_id)).endswith("JobCompleted HookFailed HookCompleted")


async def test_a_hook_that_fails_twice_is_recorded_twice(serve: Serve) -> None:
    async def save(job: CompletedJob) -> str:
        raise JobError("no_luck", "It did not work.", retryable=False)

    service = await serve(analyze, hook(save))
    job_id = (await service.submit("analyze", 1)).job_id
    await over(service, job_id)
    await service.jobs.retry(hook_id(job_id, "story"), actor="operator")
    head = service.log.head
    while len(await recorded_of(service, job_id, HookFailed)) < 2:
        head = await service.log.wait(head)
    await service.views.wait_for_position(service.log.head)
    assert await service.views.pending_hooks(10) == []


async def test_a_cancelled_hook_ends_the_wait(serve: Serve) -> None:
    async def save(job: CompletedJob) -> None:
        await asyncio.Event().wait()

    service = await serve(analyze, hook(save))
    job_id = (await service.submit("analyze", 1)).job_id
    await job_when(service, hook_id(job_id, "story"), lambda job: job.status == "running")
    await service.jobs.cancel(hook_id(job_id, "story"), actor="operator")
    [result] = (await over(service, job_id)).hooks
    assert result.error == {"code": "cancelled", "message": None}


@pytest.mark.parametrize("returned", [{"url": "javascript:alert(1)"}, {"key": 1}, b"7", 7.5, []])
async def test_a_record_that_is_none_fails_the_hook(serve: Serve, returned: Any) -> None:
    async def save(job: CompletedJob) -> Any:
        return returned

    service = await serve(analyze, hook(save))
    [result] = (await over(service, (await service.submit("analyze")).job_id)).hooks
    assert result.error is not None
    assert result.error["code"] == "bad_hook_result"


async def test_a_failed_or_cancelled_job_has_no_record(serve: Serve, stories: Stories) -> None:
    @handler("analyze")
    async def fail(context: Context, payload: Any) -> None:
        raise JobError("no_luck", "It did not work.", retryable=False)

    service = await serve(fail, hook(stories.save))
    failed = await service.wait((await service.submit("analyze")).job_id)
    assert failed.status == "failed"
    assert failed.is_over
    assert await service.views.pending_hooks(10) == []


async def test_a_hook_goes_on_for_a_job_that_was_hidden(serve: Serve, stories: Stories) -> None:
    open_gate = asyncio.Event()

    async def save(job: CompletedJob) -> str:
        await open_gate.wait()
        return "7"

    service = await serve(analyze, hook(save))
    job_id = (await service.submit("analyze", 1)).job_id
    await service.wait(job_id)
    await service.jobs.expire(job_id, "ttl", actor="service")
    open_gate.set()
    await job_when(service, job_id, lambda job: bool(job.hooks))
    assert (await kinds(service, job_id)).endswith("JobCompleted JobExpired HookCompleted")


# --- kills


class Kills:
    """Copies of a data directory: what a kill at a moment would leave."""

    def __init__(self, data: Path, stories: Stories, copies: Path) -> None:
        self._data = data
        self._stories = stories
        self._copies = copies
        self.left: list[Path] = []

    def copy(self) -> None:
        to = self._copies / str(len(self.left))
        shutil.copytree(self._data, to / "data", ignore=shutil.ignore_patterns("views*"))
        shutil.copy(self._stories.path, to / "stories.db")
        self.left.append(to)


async def test_a_kill_at_any_moment_leaves_one_record(
    serve: Serve, stories: Stories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each event, and between the call of the hook and the event that says that it ended."""
    kills = Kills(tmp_path / "data", stories, tmp_path / "kills")

    def save(job: CompletedJob) -> Any:
        record = stories.save(job)
        kills.copy()  # nothing is written now
        return record

    service = await serve(analyze, hook(save))
    append_many, lock = service.log.append_many, asyncio.Lock()

    async def append_and_copy(*args: Any, **more: Any) -> Any:
        async with lock:
            outcomes = await append_many(*args, **more)
            await asyncio.to_thread(kills.copy)
        return outcomes

    monkeypatch.setattr(service.log, "append_many", append_and_copy)
    job_id = (await service.submit("analyze", 3, owner="ann")).job_id
    await over(service, job_id)
    async with lock:
        pass  # the last copy is made
    assert len(kills.left) == 8  # three events of the job, three of the hook's, the end, the call
    for left in kills.left:
        resumed = copy(stories)
        resumed.path = left / "stories.db"
        async with Service(left / "data", [analyze, hook(resumed.save, retry_delay_s=0)]) as again:
            await over(again, job_id)
            assert resumed.counts() == (1, 1), left
            [end] = await recorded_of(again, job_id, HookCompleted)
            assert end.event == HookCompleted("story", job_id, f"/stories/{job_id}")
            assert len(await recorded_of(again, hook_id(job_id, "story"), JobSubmitted)) == 1


HOOKED = """
import os, signal, sqlite3
from eventjobs import handler, on_completion

@handler("analyze")
async def analyze(context, payload):
    return payload

@on_completion("analyze", name="story", retry_delay_s=0)
def save(job):
    with sqlite3.connect(os.environ["STORIES"]) as db:
        db.execute("CREATE TABLE IF NOT EXISTS stories (job_id TEXT UNIQUE)")
        added = db.execute("INSERT OR IGNORE INTO stories VALUES (?)", (job.job_id,)).rowcount
    if added:
        os.kill(os.getpid(), signal.SIGKILL)  # the record is made, and the service does not know
    return {"url": f"/stories/{job.job_id}"}
"""


def request(url: str, body: Any = None, **headers: str) -> bytes:
    data = None if body is None else orjson.dumps(body)
    with urlopen(Request(url, data, headers), timeout=30) as response:
        content: bytes = response.read()
    return content


def test_a_real_kill_between_the_record_and_its_event(tmp_path: Path) -> None:
    (tmp_path / "hooked.py").write_text(HOOKED)
    environment: Any = {"STORIES": str(tmp_path / "stories.db"), "PYTHONPATH": str(tmp_path)}
    server = start(tmp_path / "data", "--app", "hooked", **environment)
    job = {"type": "analyze", "payload": 3}
    reply = request(f"{server.url}/v1/jobs", job, **{"Content-Type": "application/json"})
    job_id = orjson.loads(reply)["job_id"]
    assert server.process.wait(30) == -signal.SIGKILL
    assert server.process.stdout is not None
    server.process.stdout.close()
    with serving(tmp_path, "--app", "hooked", **environment) as server:
        # The stream ends once the hook has ended.
        stream = request(f"{server.url}/v1/jobs/{job_id}/events", Accept="text/event-stream")
        shown = orjson.loads(request(f"{server.url}/v1/jobs/{job_id}"))
    assert stream.count(b"HookCompleted") == 1
    assert shown["links"]["story"] == f"/stories/{job_id}"
    with sqlite3.connect(environment["STORIES"]) as db:
        assert db.execute("SELECT count(*) FROM stories").fetchone() == (1,)


async def test_a_full_disk_delays_a_hook(
    serve: Serve, stories: Stories, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(analyze, hook(stories.save), clock=clock)
    failures = [DiskFull("the disk is full")] * 2

    async def refuse(new: NewEvent) -> None:
        event = new.event
        if failures and (
            isinstance(event, HookCompleted)
            or (isinstance(event, JobSubmitted) and event.spec.type == STORY)
        ):
            raise failures.pop()

    at_each_append(monkeypatch, service.log, before=refuse)
    job_id = (await service.submit("analyze", 3, owner="ann")).job_id
    await time_passing(clock, over(service, job_id))
    assert not failures
    assert stories.counts() == (1, 1)


async def test_hooks_that_are_not_declared_wait(serve: Serve, stories: Stories) -> None:
    """As jobs do whose type has no handler."""
    gate = asyncio.Event()

    async def save(job: CompletedJob) -> str:
        await gate.wait()
        return "7"

    service = await serve(analyze, hook(save), drain_s=0)
    job_id = (await service.submit("analyze", 3, owner="ann")).job_id
    await job_when(service, hook_id(job_id, "story"), lambda job: job.status == "running")
    await service.close()
    service = await serve(analyze)
    assert (await service.jobs.current(job_id)).is_over is False  # type: ignore[union-attr]
    await service.wait((await service.submit("analyze", 4)).job_id)
    await service.close()
    service = await serve(analyze, hook(stories.save, retry_delay_s=0))
    await over(service, job_id)
    assert stories.counts() == (1, 1)


async def test_a_job_from_before_a_hook_was_declared_has_none(
    serve: Serve, stories: Stories
) -> None:
    """Which hooks a job has is said by its first event, so that a replay has the same links."""
    service = await serve(analyze, concurrency=0)
    job_id = (await service.submit("analyze", 3, job_id=ID)).job_id
    await service.close()
    service = await serve(analyze, hook(stories.save))
    assert (await service.wait(job_id)).is_over
    # The same submission again is no other one.
    assert (await service.submit("analyze", 3, job_id=ID)).job_id == job_id
    assert stories.calls == []


# --- declarations


@pytest.mark.parametrize(
    "options",
    [{"name": "self"}, {"name": "a b"}, {"name": "story", "timeout_s": 0}, {"name": "x" * 41}],
)
def test_a_bad_declaration_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        on_completion("analyze", **options)


def test_what_is_no_hook_is_refused() -> None:
    with pytest.raises(TypeError, match="must take"):
        hook(lambda: None)
    same = [hook(lambda job: None), hook(lambda job: None)]
    with pytest.raises(ValueError, match="two completion hooks of 'analyze' are called 'story'"):
        HandlerRegistry(same)


def test_a_hook_of_a_type_without_a_handler_is_refused() -> None:
    with pytest.raises(InvalidInput, match="completion hook 'story' of 'analyze'"):
        Service(handlers=[plain, hook(lambda job: None)])
