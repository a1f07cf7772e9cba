"""The snippets of the texts for a shell and for Python run as they are printed, on one server.

SCENARIOS and OUT_OF_REACH have every block between them: a new one in neither is a failure.
"""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from eventjobs.http.dialects.job_ids import prefixed_id
from eventjobs.job_store import JobStore
from tests.conftest import program
from tests.seeds.conftest import PORTS, call, printed_settings, start_in, stop, submit, wait
from tests.support.foreign_servers import Reply, answering
from tests.support.seed_texts import COPIES, ORIGINALS, Snippet, differences, snippets
from tests.support.servers import Server

SNIPPETS = snippets()

#: Blocks that no test runs, and why.
BLOCKS_OUT_OF_REACH = {
    "000.3": "it runs the tests of the seed's own program, which are not printed",
    "000.17": "it runs the seed's tests and pushes its repository",
    "000.18": "it pushes the repository of the front end",
    "001.6": "it starts the seed's own program; eventjobs serve is the same step here",
    "001.11": "it runs the tests of the seed's own program, which are not printed",
    "001.12": "it is the output of those tests",
    "002.0": "it is a drawing",
    "004.11": "it runs scripts of the seed, which are not printed",
}
#: Lines of blocks that are run otherwise, and why they are left out.
LINES_OUT_OF_REACH = {
    "000.19": {'ssh your-server "ls -la /path/to/backend/shadow/jobs/"': "it logs in to a machine"},
    "000.20": {"tail -f server.log": "it never ends, and the file is that of the seed's program"},
    "004.15": {
        "Download http://example.com/file: Attempt 3/3": "no job of the demo downloads a file;"
        " tests/http/dialects/test_log_lines.py has the line",
    },
    "004.16": {
        "Circuit breaker cooldown complete. Closing circuit.": "it takes a model that answers;"
        " tests/http/dialects/test_log_lines.py has the line",
    },
    "004.17": {
        "Job job_123 was cancelled during parsing.": "a small file is parsed too fast to be"
        " cancelled meanwhile; tests/http/dialects/test_log_lines.py has the line",
    },
    "004.18": {
        "Job job_123 timed out during parsing.": "as for cancellation;"
        " tests/http/dialects/test_log_lines.py has the line",
    },
    "004.19": {
        "Marked job job_123 as failed due to shutdown": "no job runs when the server stops;"
        " tests/http/dialects/test_log_lines.py has the line",
    },
    "003.5": {
        "cd backend": "the folder of the seed's own program",
        "python test_job_queue.py": "a test of the seed's own program, which is not printed",
        "python -m uvicorn app.main:app --reload": "it starts the seed's own program",
    },
}
#: Blocks that are compared with responses below, or that other files of tests run.
OTHERWISE = {
    **{f"000.{n}": "test_javascript.py or test_front_ends.py" for n in (4, 5, 6, 7, 8, 9, 10)},
    "001.13": "test_javascript.py",
    "003.0": "test_javascript.py",
    "003.1": "test_javascript.py",
    "003.6": "test_front_ends.py",
    "004.9": "test_javascript.py",
    "002.1": "conftest.py: the server is started with it",
    "004.8": "conftest.py: the server is started with it",
}

#: The end of a job is waited for instead of a time.
PRELUDE = """
set -eu
sleep() {
  for _ in $(seq 200); do
    case "$(curl -s "$BASE/api/job-status/$JOB_ID")" in
      *'"completed"'* | *'"failed"'* | *'"cancelled"'*) return ;;
    esac
    command sleep 0.1
  done
}
"""


def command_lines(snippet: Snippet) -> str:
    """The block without the lines that are out of reach."""
    code = snippet.code
    for line in LINES_OUT_OF_REACH.get(snippet.key, ()):
        assert f"{line}\n" in code, f"{snippet.key} has no such line: {line}"
        code = code.replace(f"{line}\n", "")
    return code


def rewrite(code: str, server: Server, **names: str) -> str:
    """*code* for *server*: for another port, and with the ids that it leaves to the reader."""
    if server.url != f"http://127.0.0.1:{PORTS[0]}":
        for port in PORTS:
            code = re.sub(rf"http://(localhost|127\.0\.0\.1):{port}", server.url, code)
    code = code.replace("http://your-backend.com", server.url)
    for placeholder, value in names.items():
        code = code.replace(placeholder, value)
    return code


def run_shell(server: Server, *keys: str, code: str = "", **names: str) -> list[Any]:
    """The JSON documents that the blocks print, run one after the other in one shell."""
    return list(documents(output_of(server, *keys, code=code, **names)))


def output_of(server: Server, *keys: str, code: str = "", **names: str) -> str:
    code += "\n".join(command_lines(SNIPPETS[key]) for key in keys)
    ran = subprocess.run(
        ["bash", "-c", PRELUDE + rewrite(code, server, **names)],
        cwd=server.data.parent,
        env=os.environ
        | {"BASE": server.url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def documents(text: str) -> Sequence[Any]:
    decoder, position, values = json.JSONDecoder(), 0, []
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        values.append(value)
        position += len(text[position:]) - len(text[position:].lstrip())
    return values


def log_of(server: Server) -> str:
    return (server.data.parent / "data.log").read_text()


def assert_like(key: str, actual: Any) -> None:
    assert not differences(SNIPPETS[key].json, actual), actual


# --- the scenarios, each with the blocks that it runs

Scenario = Callable[..., None]
SCENARIOS: dict[Scenario, tuple[str, ...]] = {}


def runs(*keys: str) -> Callable[[Scenario], Scenario]:
    def register(scenario: Scenario) -> Scenario:
        SCENARIOS[scenario] = keys
        return scenario

    return register


@runs("000.11", "000.2", "000.16", "000.12", "000.14")
def a_text_is_queued_and_its_status_checked(server: Server) -> None:
    [queued] = run_shell(server, "000.11")
    assert_like("000.2", queued)
    assert set(queued) == set(SNIPPETS["000.16"].json)
    [status] = run_shell(server, "000.12", **{"<job_id_from_step_1>": queued["job_id"]})
    assert status["payload"] == {"text": "Test protocol", "ta": "oncology"}
    wait(server, queued["job_id"])
    [status] = run_shell(server, "000.12", **{"<job_id_from_step_1>": queued["job_id"]})
    assert status["status"] == "completed"
    optional = {"error_message"}
    assert set(SNIPPETS["000.14"].json) - optional == set(status)


@runs("000.1", "000.15")
def a_text_is_queued_with_all_its_fields(server: Server) -> None:
    for key in ("000.1", "000.15"):
        body = SNIPPETS[key].json
        reply = call("POST", f"{server.url}/api/queue-job", body)
        assert reply.status == 200, reply
        status = call("GET", f"{server.url}/api/job-status/{reply.body['job_id']}")
        assert status.body["payload"] == body


@runs("000.13", "001.9", "001.4")
def a_missing_job_is_not_found(server: Server) -> None:
    for key in ("000.13", "001.9"):
        [missing] = run_shell(server, key)
        assert missing["detail"] == "Job not found"
        assert_like("001.4", missing)
    job_id = missing["path"].rpartition("/")[2]
    assert f"📊 Job status request for job_id: {job_id}" in log_of(server)
    assert f"ℹ️ Job {job_id} not found (404)" in log_of(server)  # noqa: RUF001


@runs("001.10", "001.5")
def a_text_that_is_no_id_is_refused(server: Server) -> None:
    [refused] = run_shell(server, "001.10")
    assert_like("001.5", refused)
    assert "⚠️ Invalid job_id format (not UUID): not-a-uuid" in log_of(server)


@runs("000.19")
def a_deployment_is_verified(server: Server) -> None:
    health, queued = run_shell(server, "000.19")
    assert health["status"] == "healthy"
    assert_like("000.2", queued)


@runs("000.20")
def an_empty_job_reaches_the_endpoint(server: Server) -> None:
    [reply] = run_shell(server, "000.20")
    assert reply["code"] == "invalid_input"  # which is no 404: the endpoint is there


@runs("000.21")
def the_folder_of_job_files_can_be_made(server: Server) -> None:
    assert run_shell(server, "000.21") == []
    assert (server.data.parent / "shadow" / "jobs").is_dir()


@runs("001.7", "001.8", "001.3", "001.2", "001.1")
def a_job_file_is_served_at_once(server: Server) -> None:
    assert run_shell(server, "001.7") == []
    [job] = run_shell(server, "001.8")
    written = json.loads((server.data.parent / "jobs" / f"{job['job_id']}.json").read_text())
    assert {name: job[name] for name in written} == written
    assert_like("001.3", job)
    assert "📁 JobStore initialized with base_dir: jobs" in log_of(server)
    assert f"✅ Returning job {job['job_id']} status: completed" in log_of(server)
    method, path = SNIPPETS["001.2"].code.split()
    reply = call(method, server.url + path)
    assert (reply.status, reply.body) == (200, job)
    optional = {"error_message"}
    assert set(SNIPPETS["001.1"].json) - optional == set(job)


@runs("003.5", "003.2", "003.3", "003.4")
def an_analysis_is_submitted_with_a_token(server: Server) -> None:
    [accepted] = run_shell(server, "003.5")
    assert_like("003.2", accepted)
    assert accepted["poll_url"] == f"/jobs/{accepted['job_id']}"
    wait(server, accepted["job_id"])
    job = call("GET", server.url + accepted["poll_url"]).body
    assert set(SNIPPETS["003.3"].json) <= set(job)
    assert_like("003.4", job | {"result": job["result"] | {"case_id": "123"}})
    assert job["result"]["case_id"] == "YOUR_CASE_ID"


@runs("004.0", "004.1", "004.2", "004.3", "004.4", "004.5")
def a_job_is_cancelled(server: Server) -> None:
    for key in ("004.1", "004.2"):
        job_id = prefixed_id(submit(server, "noop", delay_s=600))
        [first] = run_shell(server, key, job_abc123=job_id)
        assert_like("004.3", first)
        [again] = run_shell(server, key, job_abc123=job_id)
        assert_like("004.4", again)
        assert again["cancelledAt"] == first["cancelledAt"]
        [unknown] = run_shell(server, key)
        assert unknown["error"] == "Job not found"
    done = submit(server, "noop")
    wait(server, done)
    [refused] = run_shell(server, "004.1", job_abc123=prefixed_id(done))
    assert refused == SNIPPETS["004.5"].json | {"jobId": prefixed_id(done)}
    method, path = SNIPPETS["004.0"].code.split()
    reply = call(method, server.url + path.replace("<id>", prefixed_id(done)))
    assert (reply.status, reply.body) == (409, refused)


@runs("004.6", "004.7")
def a_failed_job_has_its_error_file(server: Server) -> None:
    job_id = submit(
        server, "countdown", {"steps": 100, "interval_s": 1}, timeout_s=0.05, max_attempts=1
    )
    wait(server, job_id)
    status = call("GET", f"{server.url}/api/job-status/{prefixed_id(job_id)}").body
    assert set(status) == set(SNIPPETS["004.6"].json)
    assert status["error"] == "timeout"
    error = call("GET", status["resultUrl"]).body
    assert set(error) == set(SNIPPETS["004.7"].json)
    assert (error["error"], error["message"]) == ("timeout", status["errorMessage"])


@runs("004.12")
def a_file_is_uploaded_and_its_job_cancelled(server: Server) -> None:
    cancelled, status = run_shell(server, "004.12")
    # The small file of the test may be analyzed before it is cancelled.
    assert cancelled["status"] in {"cancelled", "completed"}
    assert status["status"] == cancelled["status"]
    assert status["jobId"] == cancelled["jobId"]


@runs("004.13")
def a_job_of_another_server_times_out(server: Server, tmp_path: Path) -> None:
    """The server is started with the exported values, ten times smaller: 1 s and 2 s."""
    exported = re.findall(r"^export ([A-Z_]+)=(\d+)", SNIPPETS["004.13"].code, re.MULTILINE)
    settings = {name: str(int(value) / 10) for name, value in exported}
    assert len(settings) == 2
    slow = start_in(tmp_path, settings | {"EVENTJOBS_MAX_ATTEMPTS": "1"})
    try:
        [status] = run_shell(slow, "004.13")
    finally:
        stop(slow)
    assert (status["status"], status["error"]) == ("failed", "timeout")


@runs("004.14")
def an_invalid_key_gives_insights_of_the_file_itself(server: Server, tmp_path: Path) -> None:
    """The server is started with the exported key, which the model's service refuses."""
    exported = dict(re.findall(r'^export ([A-Z_]+)="(.*)"', SNIPPETS["004.14"].code, re.MULTILINE))
    assert list(exported) == ["OPENROUTER_API_KEY"]
    with answering(Reply(401, "application/json", b"{}")) as model:
        other = start_in(tmp_path, exported | {"LLM_BASE_URL": model})
        try:
            [status] = run_shell(other, "004.14")
            result = call("GET", status["resultUrl"]).body
            job = call("GET", f"{other.url}/v1/jobs/{UUID(hex=status['jobId'][4:])}").body
        finally:
            stop(other)
    assert status["status"] == "completed"
    assert result["insights"] == {"text": " ".join(result["sentences"]), "by": "narrative"}
    assert [each["code"] for each in job["issues"]] == ["llm_failure_fallback"]


@runs("004.15", "004.16", "004.17", "004.18", "004.19")
def what_happens_to_jobs_is_logged(server: Server, tmp_path: Path) -> None:
    quick = {"RETRY_INITIAL_DELAY": "0.01", "SIMULATED_SLOW_PROCESSING_SECONDS": "0"}
    logging = start_in(tmp_path, printed_settings() | quick)
    endless = {"steps": 100, "interval_s": 1}
    try:
        for _ in range(6):  # no model can be reached; from the sixth job on none is tried
            wait(logging, submit(logging, "llm-summary", {"text": "A text."}))
        wait(logging, submit(logging, "countdown", endless, timeout_s=0.1, max_attempts=1))
        for job_id in (submit(logging, "noop", delay_s=600), start_job(logging, endless)):
            call("POST", f"{logging.url}/api/cancel?jobId={job_id}")
            wait(logging, job_id)
        uploaded = "JOB_ID=$(curl -sF file=@dev-samples/sales_demo.csv $BASE/api/upload |"
        uploaded += (
            """ python -c "import sys, json; print(json.load(sys.stdin)['jobId'])")\nsleep 1"""
        )
        run_shell(logging, code=uploaded)
    finally:
        stop(logging)
    lines = (tmp_path / "data.log").read_text()
    for key in ("004.15", "004.16", "004.17", "004.18", "004.19"):
        for line in command_lines(SNIPPETS[key]).splitlines():
            form = re.escape(line).replace("test\\.csv", r"[\w.-]+").replace("job_123", r"job_\w+")
            assert re.search(form, lines), line


def start_job(server: Server, payload: Any) -> str:
    """A countdown that runs."""
    job_id = submit(server, "countdown", payload)
    url = f"{server.url}/v1/jobs/{job_id}"
    while (reply := call("GET", url)).body["status"] == "queued":
        call("GET", url, headers={"Prefer": "wait=5", "If-None-Match": reply.headers["ETag"]})
    return job_id


@runs("004.20")
def redis_is_asked(server: Server) -> None:
    """The port of Redis belongs to Redis: the commands get that of the server."""
    job_id = prefixed_id(submit(server, "noop", delay_s=600))
    [line] = re.findall(r".*serving redis-cli.*", log_of(server))
    code = f'redis-cli() {{ {program("redis-cli")} -p {json.loads(line)["port"]} "$@"; }}\n'
    job, queued, *keys = output_of(server, "004.20", code=code, job_abc123=job_id).splitlines()
    assert json.loads(job)["jobId"] == job_id
    assert int(queued) >= 0
    assert f"job:{job_id}" in keys


@runs("000.0")
def a_job_is_created_in_a_store(server: Server, tmp_path: Path) -> None:
    before = (
        "import uuid\nfrom datetime import datetime\nfrom typing import Any, Dict\n"
        "from eventjobs.job_store import JobStore\njob_store = JobStore('jobs')\n"
    )
    after = "print(job_store.get_job(create_job({'text': 'Test'}))['status'])\n"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + SNIPPETS["000.0"].code + after],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "queued\n"), ran.stderr


@runs("001.0")
def a_store_has_the_methods_of_the_text(server: Server) -> None:
    methods = re.findall(r"def (\w+)\(((?:self, )?(.*))\)(?: -> .*)?\n", SNIPPETS["001.0"].code)
    assert len(methods) == 6
    for name, _, printed in methods:
        parameters = inspect.signature(getattr(JobStore, name)).parameters
        expected = re.findall(
            r"(\w+): [^,=]+?(?: = ([^,]+))?(?:, |$)", re.sub(r"\[.*?\]+", "", printed)
        )
        assert [
            (each.name, "" if each.default is each.empty else json.dumps(each.default))
            for each in list(parameters.values())[1 : len(expected) + 1]
        ] == [(name, default.replace("None", "null")) for name, default in expected], name


@runs("004.10")
def a_python_program_polls(server: Server) -> None:
    running = {"steps": 2, "interval_s": 0.2}
    fails = {"steps": 100, "interval_s": 1}
    jobs = {
        "completed": submit(server, "countdown", running),
        "failed": submit(server, "countdown", fails, timeout_s=0.1, max_attempts=1),
        "cancelled": submit(server, "noop", delay_s=600),
    }
    call("POST", f"{server.url}/api/cancel?jobId={prefixed_id(jobs['cancelled'])}")
    code = rewrite(SNIPPETS["004.10"].code, server)
    calls = "".join(
        f"print(poll_job_status({prefixed_id(job_id)!r})['status'])\n" for job_id in jobs.values()
    )
    ended = "try: poll_job_status('job_unknown', 0.5)\nexcept KeyError: print('no status')\n"
    ran = subprocess.run(
        [sys.executable, "-c", code + calls + ended],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n") == [*jobs, "no status", ""]


# --- all of them


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_snippets_run_as_printed(scenario: Scenario, server: Server, tmp_path: Path) -> None:
    own = {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(scenario).parameters else {}
    scenario(server, **own)


def test_each_snippet_is_run_or_has_a_reason() -> None:
    run = [key for keys in SCENARIOS.values() for key in keys]
    assert len(run) == len(set(run))
    accounted = [*run, *BLOCKS_OUT_OF_REACH, *OTHERWISE]
    assert sorted(accounted) == sorted(set(accounted))
    assert set(SNIPPETS) == set(accounted)
    assert set(LINES_OUT_OF_REACH) <= set(run)


def test_the_copies_are_those_of_the_texts() -> None:
    if not ORIGINALS.is_dir():
        pytest.skip("the texts are not beside this checkout")
    for original in ORIGINALS.glob("*.txt"):
        assert (COPIES / original.name).read_bytes() == original.read_bytes()
