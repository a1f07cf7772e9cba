"""A handler has the same results, reports and errors in every mode, here and in a worker."""

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import AttemptFailed, LogWritten, ProgressReported, StepCompleted
from eventjobs.domain.outcomes import RESULT
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.parity_handlers import KINDS, VALUES, behave, behave_on_the_loop, child
from tests.support.process_handlers import large
from tests.support.remote_runner import remote_runner
from tests.support.waiting import events_of

ON_THE_LOOP = handler("parity", max_attempts=1)(behave_on_the_loop)
IN_A_THREAD = handler("parity", max_attempts=1)(behave)
IN_A_PROCESS = handler("parity", max_attempts=1, process=True)(behave)

#: What differs from run to run.
NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|, and may have \d+")
TRACEBACK = re.compile(r"'traceback': .*", re.DOTALL)

UNFIT = ("too deep", "not a number", "not JSON")
SOME = ["unicode", "20,000 items", "199 levels", "too deep", "700,000 characters"]
FEW = {"issues": ["15,000 keys"], "lines": ["700,000 characters"]}

#: The records of a handler on the loop, by kind. All others are compared with them.
_EXPECTED: dict[str, dict[str, Any]] = {}


async def records_of(service: Service, kind: str) -> dict[str, Any]:
    """By value, the record of a job of *kind*."""
    jobs = {
        value: await service.submit("parity", {"kind": kind, "value": value}, max_attempts=1)
        for value in values_of(kind)
    }
    return {value: await record_of(service, job.job_id) for value, job in jobs.items()}


def values_of(kind: str) -> list[str]:
    """All values as a result; for other kinds, those that once gave different records."""
    return list(VALUES) if kind == "result" else FEW.get(kind, SOME)


async def record_of(service: Service, job_id: str) -> Any:
    job = await service.wait(job_id)
    events = await events_of(service, job_id)
    error = dict(job.error or {})
    details = [each.details for each in events if isinstance(each, AttemptFailed)]
    return {
        "status": job.status,
        "result": job.result,
        "error": [
            error.get("code"),
            NUMBERS.sub("", str(error.get("message"))),
            error.get("retryable"),
        ],
        "details": [NUMBERS.sub("", TRACEBACK.sub("", str(each))) for each in details],
        "issues": job.issues,
        "artifacts": sorted(
            (each.name, each.size, each.media_type, each.sha256)
            for each in job.artifacts
            if each.name != "error.json"  # with times in it
        ),
        "steps": [
            (each.name, each.number, each.result)
            for each in events
            if isinstance(each, StepCompleted)
        ],
        "lines": [
            (each.level, NUMBERS.sub("", each.message or ""), each.fields)
            for each in events
            if isinstance(each, LogWritten)
        ],
        "progress": [
            (each.done, each.total, each.stage, each.message, each.data)
            for each in events
            if isinstance(each, ProgressReported)
        ],
    }


async def record_on_the_loop(serve: Serve, kind: str, folder: Path) -> dict[str, Any]:
    if kind not in _EXPECTED:
        service = await serve(ON_THE_LOOP, child, data=folder / "expected")
        _EXPECTED[kind] = await records_of(service, kind)
    return _EXPECTED[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("where", "parity"),
    [
        ("here", IN_A_THREAD),
        ("here", IN_A_PROCESS),
        ("in a worker", ON_THE_LOOP),
        ("in a worker", IN_A_PROCESS),
    ],
    ids=["thread", "process", "worker", "process of a worker"],
)
async def test_a_job_is_the_same_wherever_it_runs(
    client: Connect, serve: Serve, tmp_path: Path, where: str, parity: Handler, kind: str
) -> None:
    expected = await record_on_the_loop(serve, kind, tmp_path)
    async with AsyncExitStack() as stack:
        if where == "here":
            service = await serve(parity, child, processes=1)
        else:
            api = await client(remote("parity"), child)
            service = api.service
            await stack.enter_async_context(
                remote_runner(api, tmp_path / "worker", parity, processes=1)
            )
        records = await records_of(service, kind)
    for value in values_of(kind):
        assert records[value] == expected[value], value


async def test_what_the_others_are_compared_with_is_right(serve: Serve, tmp_path: Path) -> None:
    """Else all modes might fail alike."""
    jobs = {kind: await record_on_the_loop(serve, kind, tmp_path / kind) for kind in KINDS}
    failed = {
        (kind, value): each["error"][0]
        for kind, values in jobs.items()
        for value, each in values.items()
        if each["status"] != "completed"
    }
    assert failed == {
        **{("result", value): "result_not_json" for value in UNFIT},
        ("step", "too deep"): "step_not_json",
        ("step", "700,000 characters"): "step_too_large",
        ("child_payload", "too deep"): "invalid_input",
        ("child_result", "too deep"): "child_failed",
        **{("error", value): "c" * 200 for value in SOME},
        ("artifact", "too deep"): "result_not_json",
    }
    returned = jobs["result"]
    assert returned["109 kB"]["result"] == "x" * 109_000
    assert returned["300 kB"]["result"] == {"artifact": RESULT, "size": 300_002}
    assert [each[:2] for each in returned["5 MB"]["artifacts"]] == [(RESULT, 5_118_891)]
    assert jobs["child_result"]["700,000 characters"]["result"] == [True, "str"]
    assert jobs["step"]["20,000 items"]["steps"] == [("a step", 0, list(range(20_000)))]


async def test_a_result_beyond_a_message_of_a_process_becomes_an_artifact(serve: Serve) -> None:
    """It failed the job, which in a thread it does not."""
    service = await serve(large)
    job = await service.wait((await service.submit("large", 17 * 2**20)).job_id)
    assert job.result == {"artifact": RESULT, "size": 17 * 2**20 + 2}
    assert [(each.name, each.size) for each in job.artifacts] == [(RESULT, 17 * 2**20 + 2)]


async def test_a_childs_result_that_is_damaged_fails_the_one_that_reads_it(serve: Serve) -> None:
    @handler("parent", max_attempts=1)
    def parent(ctx: ThreadContext, payload: Any) -> Any:
        child = ctx.submit("child", {"value": "300 kB"})
        assert ctx.result(child) == "y" * 300_000
        [file] = (service.settings.data / "artifacts").glob("*/*")
        file.chmod(0o600)
        file.write_bytes(b"spoilt")
        return ctx.result(child)

    service = await serve(parent, child)
    job = await service.wait((await service.submit("parent")).job_id)
    assert (job.error or {})["code"] == "artifact_damaged"


async def test_what_only_looks_like_a_large_result_is_given_as_it_is(serve: Serve) -> None:
    @handler("poses")
    async def poses(ctx: Context, payload: Any) -> Any:
        return {"artifact": RESULT, "size": 5}

    @handler("parent")
    async def parent(ctx: Context, payload: Any) -> Any:
        return await ctx.result(await ctx.submit("poses"))

    service = await serve(poses, parent)
    job = await service.wait((await service.submit("parent")).job_id)
    assert job.result == {"artifact": RESULT, "size": 5}
