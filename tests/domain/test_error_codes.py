"""Why jobs fail: codes with classes, what is told to whom, and what a failed job leaves behind."""

import ast
import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.error_codes import CLASSES, ERROR_CODES, error_class
from eventjobs.domain.events import AttemptFailed
from eventjobs.errors import DiskFull, JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.conftest import Connect, Serve
from tests.support.waiting import job_when, kinds, recorded_of

ROOT = Path(__file__).parents[2]
#: Raised by handlers of the demo: theirs, not ours.
DEMO = ROOT / "eventjobs" / "demo"


def codes_in(path: Path) -> set[str]:
    """Codes that are written out where an attempt ends."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = {"Failed": 0, "JobError": 0, "AttemptFailed": 1}.get(node.func.id)
            if place is not None and len(node.args) > place:
                code = node.args[place]
                if isinstance(code, ast.Constant):
                    found.add(str(code.value))
    return found


def test_every_code_of_ours_has_a_class() -> None:
    files = [each for each in ROOT.glob("eventjobs/**/*.py") if DEMO not in each.parents]
    used = set().union(*map(codes_in, files))
    assert {"timeout", "worker_lost", "step_not_json"} <= used
    assert used <= set(ERROR_CODES), "say what it means, in taxonomy.py and docs/errors.md"
    assert error_class("NO_SUCH_CODE") == "handler"


def test_the_page_about_errors_has_every_class_and_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    for name, says in CLASSES.items():
        assert f"| `{name}` | {says} |" in page
    for code, kind in ERROR_CODES.items():
        assert f"| `{code}` | {kind.error_class} | {kind.description} |" in page


@handler("fails")
async def fails(context: Context, payload: Any) -> None:
    raise JobError("no_stock", "There is none left.", details={"shelf": 7}, retry_after_s=0)


async def test_a_job_that_fails_for_good_leaves_error_json(client: Connect) -> None:
    asked = await client(fails)
    job_id = (await asked.submit("fails", max_attempts=2))["job_id"]
    await asked.service.wait(job_id)
    job = (await asked.get(f"/v1/jobs/{job_id}")).json
    message = "There is none left."
    public = {"code": "no_stock", "class": "handler", "message": message, "retryable": True}
    assert job["error"] == public
    assert job["links"]["error"] == f"/v1/jobs/{job_id}/artifacts/error.json"
    [artifact] = job["artifacts"]
    assert (artifact["name"], artifact["media_type"]) == ("error.json", "application/json")
    told = (await asked.get(job["links"]["error"])).json
    [failed] = (await recorded_of(asked.service, job_id, AttemptFailed))[1:]
    assert told["jobId"] == job_id
    assert {name: told[name] for name in ("status", "error", "class", "message")} == {
        "status": "failed",
        "error": "no_stock",
        "class": "handler",
        "message": message,
    }
    assert (told["details"], told["attempt"], told["retryable"]) == ({"shelf": 7}, 2, True)
    assert [each["outcome"] for each in told["attempts"]] == ["failed", "failed"]
    assert told["attempts"][1]["ended_at"] == told["timestamp"]
    assert told["timestamp"].endswith("Z")
    assert abs(failed.at_us - asked.service.clock.now_us()) < 60e6
    assert await kinds(asked.service, job_id) == (
        "JobSubmitted AttemptStarted AttemptFailed AttemptStarted ArtifactStored AttemptFailed"
    )


async def test_only_a_failed_job_links_its_error(client: Connect) -> None:
    tries: list[int] = []

    @handler("once")
    async def once(context: Context, payload: Any) -> None:
        tries.append(context.attempt)
        if len(tries) == 1:
            raise JobError("no", "no", retryable=False)

    asked = await client(once)
    submitted = await asked.submit("once")
    job_id = submitted["job_id"]
    assert submitted["links"]["error"] is None
    await asked.service.wait(job_id)
    assert (await asked("POST", f"/v1/jobs/{job_id}/retry")).status == 200
    await asked.service.wait(job_id)
    job = (await asked.get(f"/v1/jobs/{job_id}")).json
    assert (job["status"], job["error"], job["links"]["error"]) == ("completed", None, None)
    assert [each["name"] for each in job["artifacts"]] == ["error.json"], "it happened all the same"


@pytest.mark.parametrize("trouble", [DiskFull(), OSError(5, "the disk is broken")])
async def test_a_job_fails_although_error_json_cannot_be_stored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    service = await serve(fails)

    def refuse(content: bytes | Path) -> tuple[str, int]:
        raise trouble

    monkeypatch.setattr(service.artifacts, "store", refuse)
    job = await service.submit("fails", max_attempts=1)
    ended = await service.wait(job.job_id)
    assert (ended.status, ended.artifacts) == ("failed", ())
    assert ended.error is not None
    assert ended.error["code"] == "no_stock"


async def test_a_job_lost_for_good_leaves_error_json(serve: Serve, tmp_path: Path) -> None:
    @handler("fails")
    async def endless(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(endless, drain_s=0)
    job = await service.submit("fails", max_attempts=1)
    await job_when(service, job.job_id, lambda job: job.status == "running")
    copy = tmp_path / "copy"
    await asyncio.to_thread(shutil.copytree, service.settings.data, copy)
    again = await serve(endless, data=copy)
    lost = await again.wait(job.job_id)
    assert lost.error is not None
    assert (lost.error["code"], lost.error["class"]) == ("worker_lost", "worker")
    assert [each.name for each in lost.artifacts] == ["error.json"]


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
    found = await again.jobs.load(job.job_id)
    assert found is not None
    assert (found.status, found.error and found.error["code"]) == (status, code)
    assert found.can_retry == (policy == "fail")
    assert found.tries == (1 if policy == "fail" else 0)


def test_a_policy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="on_shutdown of 'cut' is one of release, fail"):
        handler("cut", on_shutdown="explode")  # type: ignore[arg-type]  # which is the point
