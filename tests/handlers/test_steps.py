"""A step's result is stored however its attempt ends, and the step is not repeated."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import LogWritten, StepCompleted
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import DiskFull, JobError, LogError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.log import NewEvent
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.remote_runner import declare_remote, remote_runner
from tests.support.waiting import job_when, kinds, recorded_of, time_passing, turns


class Work:
    """What steps do: each name given is done, and counted."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, name: str, result: Any = None) -> Any:
        if name in self.broken:
            raise JobError("broken", f"{name} does not work", retryable=False)
        self.done.append(name)
        return name if result is None else result

    async def later(self, name: str) -> Any:
        await asyncio.sleep(0)
        return self(name)


@pytest.fixture
def work() -> Work:
    return Work()


def warnings(lines: list[Recorded]) -> list[str]:
    return [
        each.event.message or ""
        for each in lines
        if isinstance(each.event, LogWritten) and each.event.level == "warning"
    ]


async def end_of_job(service: Service, job_id: str) -> Job:
    return await job_when(service, job_id, lambda job: job.finished)


def steps_of(job: Job) -> list[str]:
    return [each.name for each in job.steps]


def three(work: Work, *names: str) -> Any:
    """A handler that takes these steps in turn."""

    @handler("three")
    async def three(context: Context, payload: Any) -> list[str]:
        return [await context.step(name, work.later, name) for name in names or ("a", "b", "c")]

    return three


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_a_retry_goes_on_after_the_steps_that_are_completed(
    client: Connect, work: Work, threaded: bool
) -> None:
    @handler("three")
    def in_a_thread(context: ThreadContext, payload: Any) -> list[str]:
        return [context.step(name, work, name) for name in ("a", "b", "c")]

    api = await client(in_a_thread if threaded else three(work))
    work.broken.add("c")
    job_id = (await api.submit("three"))["job_id"]
    await end_of_job(api.service, job_id)
    failed = (await api.get(f"/v1/jobs/{job_id}")).json
    assert (failed["status"], failed["error"]["code"]) == ("failed", "broken")
    events = await recorded_of(api.service, job_id, StepCompleted)
    assert [each["name"] for each in failed["steps"]] == ["a", "b"]
    assert (
        failed["steps"][1]["at"]
        == (await api.get(f"/v1/jobs/{job_id}/events")).json["events"][events[1].version - 1]["at"]
    )
    work.broken.clear()
    retried = await api("POST", f"/v1/jobs/{job_id}/retry")
    assert retried.status == 200
    job = await end_of_job(api.service, job_id)
    assert (job.status, job.result) == ("completed", ["a", "b", "c"])
    assert work.done == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("how", "repeated"),
    [
        ({}, ["c"]),
        ({"from_step": "b"}, ["b", "c"]),
        ({"from_step": "a"}, ["a", "b", "c"]),
        ({"restart": True}, ["a", "b", "c"]),
        ({"restart": False, "from_step": None, "reason": "why not"}, ["c"]),
    ],
    ids=str,
)
async def test_a_retry_repeats_what_it_is_told_to(
    client: Connect, work: Work, how: dict[str, Any], repeated: list[str]
) -> None:
    api = await client(three(work))
    work.broken.add("c")
    job_id = (await api.submit("three"))["job_id"]
    await end_of_job(api.service, job_id)
    work.broken.clear()
    work.done.clear()
    assert (await api("POST", f"/v1/jobs/{job_id}/retry", how)).status == 200
    assert (await end_of_job(api.service, job_id)).status == "completed"
    assert work.done == repeated


async def test_a_retry_from_a_step_that_there_is_not_names_those_there_are(
    client: Connect, work: Work
) -> None:
    api = await client(three(work))
    work.broken.add("c")
    job_id = (await api.submit("three"))["job_id"]
    await end_of_job(api.service, job_id)
    refused = await api("POST", f"/v1/jobs/{job_id}/retry", {"from_step": "z"})
    assert (refused.status, refused.code) == (409, "unknown_step")
    assert "'a', 'b'" in refused.json["detail"]
    both = await api("POST", f"/v1/jobs/{job_id}/retry", {"from_step": "a", "restart": True})
    assert (both.status, both.code) == (422, "invalid_input")
    assert (await api.get(f"/v1/jobs/{job_id}")).json["status"] == "failed"


async def test_a_crash_in_the_middle_repeats_no_completed_step(
    serve: Serve, work: Work, tmp_path: Path
) -> None:
    hanging = asyncio.Event()

    @handler("three")
    async def hangs(context: Context, payload: Any) -> None:
        await context.step("a", work, "a", {"rows": (1, 2)})
        await context.step("b", hanging.wait)

    @handler("three")
    async def goes_on(context: Context, payload: Any) -> Any:
        return [
            await context.step("a", work, "a again"),
            await context.step("b", work, "b"),
        ]

    service = await serve(hangs, drain_s=0)
    job = await service.submit("three")
    await job_when(service, job.job_id, lambda job: len(job.steps) == 1)
    copy = tmp_path / "copy"
    await asyncio.to_thread(shutil.copytree, service.settings.data, copy)
    again = await serve(goes_on, data=copy)
    assert (await again.wait(job.job_id)).result == [{"rows": [1, 2]}, "b"]
    assert work.done == ["a", "b"]


async def test_the_first_run_gets_what_later_ones_will(serve: Serve) -> None:
    """A tuple would be a list only after a retry, and break the handler then."""
    seen: list[Any] = []

    @handler("twice")
    async def twice(context: Context, payload: Any) -> None:
        seen.append(await context.step("pair", lambda: {"pair": (1, 2)}))
        seen.append(await context.step("nothing", lambda: None))
        if context.attempt == 1:
            raise JobError("again", "once more", retry_after_s=0)

    service = await serve(twice)
    job = await service.submit("twice")
    assert (await service.wait(job.job_id)).attempt == 2
    assert seen == [{"pair": [1, 2]}, None, {"pair": [1, 2]}, None]


async def test_what_a_step_raises_is_raised_and_not_kept(serve: Serve, work: Work) -> None:
    @handler("careful")
    async def careful(context: Context, payload: Any) -> str:
        try:
            return str(await context.step("a", work, "a"))
        except JobError as error:
            return f"without: {error.message}"

    service = await serve(careful)
    work.broken.add("a")
    job = await service.submit("careful")
    ended = await service.wait(job.job_id)
    assert (ended.result, ended.steps) == ("without: a does not work", ())


async def test_the_same_name_again_is_another_step(serve: Serve, work: Work) -> None:
    service = await serve(three(work, "page", "page", "page#2", "page"))
    job = await service.submit("three")
    ended = await service.wait(job.job_id)
    assert steps_of(ended) == ["page", "page#2", "page#2#2", "page#3"]


async def test_steps_side_by_side_have_their_names_and_order_by_their_beginning(
    serve: Serve,
) -> None:
    second_done = asyncio.Event()

    async def first() -> str:
        await second_done.wait()
        return "first"

    async def second() -> str:
        second_done.set()
        return "second"

    @handler("gather")
    async def gather(context: Context, payload: Any) -> list[str]:
        return list(await asyncio.gather(context.step("it", first), context.step("it", second)))

    service = await serve(gather)
    job = await service.submit("gather")
    ended = await service.wait(job.job_id)
    assert (ended.result, steps_of(ended)) == (["first", "second"], ["it", "it#2"])


# --- the code has changed


async def retried_with_other_code(
    serve: Serve, work: Work, tmp_path: Path, after: Any, *before: str
) -> tuple[Service, str]:
    """A job that failed after these steps, retried by a service with another handler."""
    service = await serve(three(work, *before, "broken"))
    work.broken.add("broken")
    job = await service.submit("three")
    await service.wait(job.job_id)
    await service.close()
    work.broken.clear()
    work.done.clear()
    again = await serve(after)
    await again.jobs.retry(job.job_id, actor="test")
    assert (await end_of_job(again, job.job_id)).status == "completed"
    return again, job.job_id


async def test_steps_in_another_order_use_what_is_stored_and_it_is_told(
    serve: Serve, work: Work, tmp_path: Path
) -> None:
    after = three(work, "a", "c", "b")
    service, job_id = await retried_with_other_code(serve, work, tmp_path, after, "a", "b", "c")
    assert work.done == []
    [warning] = warnings(await recorded_of(service, job_id, LogWritten))
    assert warning == "step b was number 2 and is now number 3: its stored result is used"


async def test_a_new_step_between_others_is_nothing_to_tell(
    serve: Serve, work: Work, tmp_path: Path
) -> None:
    after = three(work, "a", "new", "b")
    service, job_id = await retried_with_other_code(serve, work, tmp_path, after, "a", "b")
    assert work.done == ["new"]
    assert not warnings(await recorded_of(service, job_id, LogWritten))
    job = await service.jobs.load(job_id)
    assert job is not None
    assert steps_of(job) == ["a", "new", "b"]


@pytest.mark.parametrize("none_left", [False, True])
async def test_a_step_nobody_asks_for_any_longer_is_told_with_the_cure(
    serve: Serve, work: Work, tmp_path: Path, none_left: bool
) -> None:
    @handler("three")
    async def without(context: Context, payload: Any) -> None:
        pass

    after = without if none_left else three(work, "a", "renamed")
    service, job_id = await retried_with_other_code(serve, work, tmp_path, after, "a", "b")
    assert work.done == ([] if none_left else ["renamed"])
    [warning] = warnings(await recorded_of(service, job_id, LogWritten))
    left = "a, b" if none_left else "b"
    assert f"not called by this one: {left}." in warning
    assert f'was="{left[0]}"' in warning


async def test_a_renamed_step_takes_over_the_result(
    serve: Serve, work: Work, tmp_path: Path
) -> None:
    @handler("three")
    async def with_new_name(context: Context, payload: Any) -> Any:
        results = [await context.step("A", work, "A", was="a"), await context.step("b", work, "b")]
        if context.attempt == 2:
            raise JobError("again", "once more", retry_after_s=0)
        return results

    service, job_id = await retried_with_other_code(serve, work, tmp_path, with_new_name, "a", "b")
    job = await service.wait(job_id)
    assert (job.result, job.attempt, work.done) == (["a", "b"], 3, [])
    assert steps_of(job) == ["A", "b"]
    assert not warnings(await recorded_of(service, job_id, LogWritten))


# --- results that cannot be stored


BIG = "x" * 2_000


@pytest.mark.parametrize(
    ("name", "result", "code"),
    [
        ("big", BIG, "step_too_large"),
        ("strange", object(), "step_not_json"),
        ("unreal", float("nan"), "step_not_json"),
        ("", 1, "invalid_input"),
        ("two\nlines", 1, "invalid_input"),
        ("x" * 201, 1, "invalid_input"),
    ],
)
@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_what_cannot_be_kept_ends_the_job_and_says_why(
    serve: Serve, name: str, result: Any, code: str, threaded: bool
) -> None:
    @handler("bad")
    async def on_the_loop(context: Context, payload: Any) -> None:
        await context.step(name, lambda: result)

    @handler("bad")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        context.step(name, lambda: result)

    service = await serve(in_a_thread if threaded else on_the_loop, result_bytes_max=1024)
    job = await service.submit("bad")
    failed = await service.wait(job.job_id)
    assert failed.error is not None
    assert (failed.error["code"], failed.error["retryable"]) == (code, False)
    assert (failed.steps, failed.attempt) == ((), 1)
    if code == "step_too_large":
        assert "'big' has 2002 bytes, and may have 1024" in failed.error["message"]


async def test_an_async_step_in_a_plain_handler_is_refused(serve: Serve, work: Work) -> None:
    @handler("bad")
    def bad(context: ThreadContext, payload: Any) -> None:
        context.step("a", work.later, "a")

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=1)
    error = (await service.wait(job.job_id)).error
    assert error is not None
    assert "a step is a plain function" in error["message"]


async def test_a_thread_that_should_stop_does_so_before_its_next_step(
    serve: Serve, work: Work
) -> None:
    @handler("stops")
    def stops(context: ThreadContext, payload: Any) -> None:
        context.step("a", work, "a")
        while not context.cancelled:
            pass
        context.step("b", work, "b")

    service = await serve(stops)
    job = await service.submit("stops")
    await job_when(service, job.job_id, lambda job: len(job.steps) == 1)
    await service.jobs.cancel(job.job_id, actor="test")
    assert (await service.wait(job.job_id)).status == "cancelled"
    assert work.done == ["a"]


def refuse_steps(service: Service, monkeypatch: pytest.MonkeyPatch, errors: list[LogError]) -> None:
    """The log refuses the next steps with these errors."""

    async def refuse(new: NewEvent) -> None:
        if isinstance(new.event, StepCompleted) and errors:
            raise errors.pop()

    at_each_append(monkeypatch, service.log, before=refuse)


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_a_step_waits_for_a_log_that_takes_no_writes(
    serve: Serve, work: Work, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, threaded: bool
) -> None:
    """Its work is done; if it failed, the next attempt would do it again."""

    @handler("three")
    def in_a_thread(context: ThreadContext, payload: Any) -> list[str]:
        return [context.step("a", work, "a")]

    service = await serve(in_a_thread if threaded else three(work, "a"), clock=clock)
    full: list[LogError] = [DiskFull(), DiskFull(), LogError()]
    refuse_steps(service, monkeypatch, full)
    job = await service.submit("three")
    ended = await time_passing(clock, service.wait(job.job_id))
    assert (ended.result, ended.attempt, work.done) == (["a"], 1, ["a"])
    assert not full
    assert clock.monotonic_s() >= 0.1 + 0.2 + 0.4, "ever longer between the tries"


async def test_a_step_that_waits_for_the_log_is_stored_though_its_attempt_is_stopped(
    serve: Serve, work: Work, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt used to repeat it."""
    service = await serve(three(work, "a", "b"), clock=clock)
    full: list[LogError] = [DiskFull() for _ in range(9)]
    refuse_steps(service, monkeypatch, full)
    job = await service.submit("three", timeout_s=1, max_attempts=2, retry_delay_s=0)
    ended = await time_passing(clock, service.wait(job.job_id))
    assert (ended.result, ended.attempt, work.done) == (["a", "b"], 2, ["a", "b"])
    assert not full


async def test_a_step_that_the_log_does_not_take_before_a_shutdown_is_given_up(
    serve: Serve, work: Work, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(three(work, "a"), clock=clock, drain_s=0, grace_s=0)
    full: list[LogError] = [DiskFull() for _ in range(1_000)]
    refuse_steps(service, monkeypatch, full)
    await service.submit("three")
    while len(full) == 1_000:  # noqa: ASYNC110  no event is set
        await asyncio.sleep(0)
    await time_passing(clock, service.close())
    await turns()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("step ")]


async def test_the_command_line_and_the_client_retry_from_a_step(
    client: Connect, work: Work
) -> None:
    from eventjobs.client import Client

    api = await client(three(work))
    work.broken.add("c")
    job_id = (await api.submit("three"))["job_id"]
    await end_of_job(api.service, job_id)
    work.broken.clear()
    work.done.clear()
    async with Client(f"http://127.0.0.1:{api.listening.port}") as ours:
        await ours.retry(job_id, "because", from_step="b")
    assert (await end_of_job(api.service, job_id)).status == "completed"
    assert work.done == ["b", "c"]
    entries = (await api.get(f"/v1/jobs/{job_id}/history")).json["entries"]
    assert "queued again by hand from the step b: because" in [each["text"] for each in entries]
    assert "StepCompleted" in await kinds(api.service, job_id)


# --- in a remote worker


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_steps_of_a_worker_elsewhere_are_kept_and_taken_over(
    client: Connect, work: Work, tmp_path: Path, threaded: bool
) -> None:
    @handler("far")
    async def on_the_loop(context: Context, payload: Any) -> Any:
        read = "read" if context.attempt == 2 else "fetch"
        result = await context.step(read, work, "fetch", {"n": (1, 2)}, was="fetch")
        if context.attempt == 1:
            raise JobError("again", "once more", retry_after_s=0)
        await context.step("big", work, "big", BIG)
        return result

    @handler("far")
    def in_a_thread(context: ThreadContext, payload: Any) -> Any:
        read = "read" if context.attempt == 2 else "fetch"
        result = context.step(read, work, "fetch", {"n": (1, 2)}, was="fetch")
        if context.attempt == 1:
            raise JobError("again", "once more", retry_after_s=0)
        context.step("big", work, "big", BIG)
        return result

    far = in_a_thread if threaded else on_the_loop
    api = await client(*declare_remote(far), result_bytes_max=1024)
    async with remote_runner(api, tmp_path / "worker", far):
        job = await api.service.wait((await api.submit("far"))["job_id"])
    assert job.error is not None
    assert (job.error["code"], job.attempt) == ("step_too_large", 2)
    assert work.done == ["fetch", "big"]
    assert steps_of(job) == ["read"]
    [first, renamed] = await recorded_of(api.service, job.job_id, StepCompleted)
    assert (first.actor, renamed.actor) == ("afar", "afar")
    assert renamed.event == StepCompleted(2, "read", 0, {"n": [1, 2]}, "fetch")
