"""Error codes, their classes and their page in the docs, and the policy of a type at a shutdown."""

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.error_codes import CLASSES, ERROR_CODES, error_class
from eventjobs.domain.job import Job
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.settings import Settings
from tests.conftest import Serve
from tests.support.waiting import job_when, kinds, turns

ROOT = Path(__file__).parents[2]
#: Its handlers raise codes of their own.
DEMO = ROOT / "eventjobs" / "demo"


def codes_in(path: Path) -> set[str]:
    """The literal codes of failures in a file."""
    codes = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            index = {"Failed": 0, "JobError": 0, "AttemptFailed": 1}.get(node.func.id)
            if index is not None and len(node.args) > index:
                code = node.args[index]
                if isinstance(code, ast.Constant):
                    codes.add(str(code.value))
    return codes


def test_every_code_of_ours_has_a_class() -> None:
    files = [each for each in ROOT.glob("eventjobs/**/*.py") if DEMO not in each.parents]
    used = set().union(*map(codes_in, files))
    assert {"timeout", "worker_lost", "step_not_json"} <= used
    assert used <= set(ERROR_CODES), "describe it in error_codes.py and docs/errors.md"
    assert error_class("NO_SUCH_CODE") == "handler"


def test_the_page_about_errors_has_every_class_and_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    for name, description in CLASSES.items():
        assert f"| `{name}` | {description} |" in page
    for code, error_code in ERROR_CODES.items():
        assert f"| `{code}` | {error_code.error_class} | {error_code.description} |" in page


# --- at a shutdown


@pytest.mark.parametrize(
    ("policy", "status", "code"),
    [("fail", "failed", "worker_shutdown"), ("release", "queued", None)],
)
async def test_a_type_says_what_becomes_of_its_jobs_at_a_shutdown(
    serve: Serve, policy: Any, status: str, code: str | None
) -> None:
    @handler("cut", on_shutdown=policy)
    async def cut(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(cut, drain_s=0)
    job = await service.submit("cut")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await service.close()
    again = await serve(cut, concurrency=0)
    loaded = await again.jobs.load(job.job_id)
    assert loaded is not None
    assert (loaded.status, loaded.error and loaded.error["code"]) == (status, code)
    assert loaded.can_retry == (policy == "fail")
    assert loaded.tries == (1 if policy == "fail" else 0)


async def test_a_job_whose_handler_has_not_begun_does_not_fail_at_a_shutdown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is claimed while the service stops, and nothing of it is half done."""
    begun: list[int] = []

    @handler("cut", on_shutdown="fail")
    async def cut(context: Context, payload: Any) -> None:
        begun.append(context.attempt)

    service = await serve(cut)
    start, claiming, go = service.jobs.start, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Job:
        claiming.set()
        await go.wait()
        return await start(*args, **kwargs)

    monkeypatch.setattr(service.jobs, "start", slow)
    job = await service.submit("cut")
    await claiming.wait()
    closing = asyncio.create_task(service.close())
    await turns()
    go.set()
    await closing
    again = await serve(cut, concurrency=0)
    assert await kinds(again, job.job_id) == "JobSubmitted AttemptStarted AttemptReleased"
    assert not begun


async def test_the_setting_makes_jobs_of_a_type_fail_at_a_shutdown(serve: Serve) -> None:
    @handler("cut")
    async def cut(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    @handler("again")
    async def again(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(cut, again, drain_s=0, shutdown_fails="cut, other")
    jobs = [(await service.submit(type)).job_id for type in ("cut", "again")]
    for job_id in jobs:
        await job_when(service, job_id, lambda job: job.status == "running")
    await service.close()
    later = await serve(cut, again, concurrency=0)
    ends = [await later.jobs.current(job_id) for job_id in jobs]
    assert [each and each.status for each in ends] == ["failed", "queued"]
    assert ends[0] is not None
    assert ends[0].error is not None
    assert ends[0].error["code"] == "worker_shutdown"


@pytest.mark.parametrize(
    ("settings", "types"),
    [
        ({}, set()),
        ({"dialects": "000,002"}, set()),
        ({"dialects": "002, 004"}, {"analyze-csv"}),
        ({"dialects": "all", "upload_type": "table"}, {"table"}),
        ({"dialects": "004", "shutdown_fails": "mail, bill"}, {"mail", "bill"}),
        ({"dialects": "004", "shutdown_fails": "off"}, set()),
    ],
)
def test_uploads_of_dialect_004_fail_at_a_shutdown_unless_the_setting_has_other_types(
    settings: dict[str, Any], types: set[str]
) -> None:
    assert Settings(**settings).types_failed_at_shutdown == types


def test_a_policy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="on_shutdown of 'cut' is one of release, fail"):
        handler("cut", on_shutdown="explode")  # type: ignore[arg-type]  # which is the point
