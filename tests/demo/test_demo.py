"""The demo's handlers report progress, stop when cancelled and refuse what does not fit."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from eventjobs.demo import HANDLERS
from eventjobs.demo.handlers import analyze_csv, countdown, flaky, noop
from eventjobs.demo.primes import primes
from eventjobs.domain.job import Job
from eventjobs.domain.spec import Artifact
from eventjobs.errors import InvalidInput, JobError
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.service import Service
from tests.support.demo_jobs import RecordingContext, Result, run, sample_frame


def test_the_stages_come_in_order_and_progress_never_goes_back(tmp_path: Path) -> None:
    sample_frame(200).write_csv(tmp_path / "a.csv")
    ctx = RecordingContext(tmp_path / "a.csv")
    run(analyze_csv, ctx)
    shares = [share for share, _ in ctx.progressed]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    stages = list(dict.fromkeys(stage for _, stage in ctx.progressed))
    assert stages == ["reading", "analyzing", "narrating", "visualizing"]
    assert all(ctx.messages)


@pytest.mark.parametrize("done", [0.0, 0.4, 0.5, 0.85, 0.9])
def test_a_cancelled_job_stops_at_the_next_step(done: float, tmp_path: Path) -> None:
    sample_frame(200).write_csv(tmp_path / "a.csv")
    ctx = RecordingContext(tmp_path / "a.csv")
    ctx.cancel_at = done
    with pytest.raises(Stopped):
        run(analyze_csv, ctx)
    assert ctx.progressed[-1][0] < 1


def test_without_the_extra_the_job_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [each for each in sys.modules if each.startswith("eventjobs.demo.csv.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(JobError, match=r"eventjobs\[demo\]") as caught:
        run(analyze_csv, RecordingContext(tmp_path))
    assert caught.value.error_code == "demo_extra_missing"


def test_the_demo_can_be_imported_without_the_extra() -> None:
    extra = ["charset_normalizer", "duckdb", "pygal", "python_calamine"]
    script = f"import sys; sys.modules.update(dict.fromkeys({extra})); import eventjobs.demo"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_job_without_a_file_ends_with_artifact_missing() -> None:
    with pytest.raises(JobError) as caught:
        run(analyze_csv, RecordingContext())
    assert caught.value.error_code == "artifact_missing"


@pytest.mark.parametrize(
    "payload", [{"separator": ",,"}, {"separator": '"'}, {"separator": "\n"}, {"charts": 1}]
)
def test_a_payload_that_does_not_fit_is_refused(payload: Result) -> None:
    with pytest.raises(InvalidInput):
        analyze_csv.parse(payload)


def test_the_demo_has_these_types() -> None:
    types = ["analyze-csv", "analyze-text", "countdown", "flaky", "llm-summary", "noop", "primes"]
    of_cases = ["agent_analysis", "call_reanalysis", "document_analysis_form7801"]
    assert sorted(HandlerRegistry.of(HANDLERS).types()) == sorted([*types, *of_cases])


def test_primes_are_counted() -> None:
    context = RecordingContext()
    assert run(primes, context, below=10_000) == {"count": 1229, "largest": 9973}
    assert run(primes, context, below=2) == {"count": 0, "largest": 0}


async def test_a_countdown_tells_of_every_step() -> None:
    ctx = RecordingContext()
    payload = countdown.parse({"steps": 4, "interval_s": 0})
    assert await countdown.function(ctx, payload) == {"steps": 4}
    assert [share for share, _ in ctx.progressed] == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(InvalidInput):
        countdown.parse({"steps": 0})


async def test_a_flaky_job_succeeds_after_the_failures_asked_for() -> None:
    payload = flaky.parse({})
    for attempt in (1, 2):
        with pytest.raises(JobError) as caught:
            await flaky.function(RecordingContext(attempt=attempt), payload)
        assert caught.value.error_code == "flaky"
        assert caught.value.retryable
    assert await flaky.function(RecordingContext(attempt=3), payload) == {"attempts": 3}


async def test_noop_takes_anything_and_returns_nothing() -> None:
    assert await noop.function(RecordingContext(), noop.parse({"any": ["thing"]})) is None


async def run_service(tmp_path: Path, content: bytes) -> Job:
    """The job that a real service made of a file with this content, once it has ended."""
    async with Service(tmp_path / "data", HANDLERS) as service:
        kept = await asyncio.to_thread(service.artifacts.store, content)
        artifacts = (Artifact("table.csv", *kept),)
        submitted = await service.submit("analyze-csv", {}, artifacts=artifacts)
        return await asyncio.wait_for(service.wait(submitted.job_id, hooks=True), 30)


def test_a_real_service_profiles_an_uploaded_file(tmp_path: Path) -> None:
    job = asyncio.run(run_service(tmp_path, sample_frame(300).write_csv().encode()))
    assert job.status == "completed"
    assert job.result["rows"] == 300
    assert [each.name for each in job.artifacts] == ["table.csv", *job.result["charts"]]
    [story] = job.hooks
    assert (story.name, story.url) == ("story", f"/v1/jobs/{job.job_id}")


def test_a_real_service_fails_a_broken_file_for_good(tmp_path: Path) -> None:
    job = asyncio.run(run_service(tmp_path, b"a\n\0"))
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert job.error["code"] == "csv_binary"
