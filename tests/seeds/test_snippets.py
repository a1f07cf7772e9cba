"""The snippets of the texts for a shell and for Python run as they are printed, on one server.

SCENARIOS and OUT_OF_REACH have every block between them: a new one in neither is a failure.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eventjobs.http.dialects.job_ids import prefixed_id
from tests.seeds.conftest import PORTS, call, submit, wait
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
    "003.5": {
        "cd backend": "the folder of the seed's own program",
        "python test_job_queue.py": "a test of the seed's own program, which is not printed",
        "python -m uvicorn app.main:app --reload": "it starts the seed's own program",
    },
}
#: Blocks whose part of the service is not there yet.
NOT_YET = {
    "000.0": "JobStore",
    "001.0": "JobStore",
    **{f"004.{n}": "uploads" for n in (12, 13, 14)},
    **{f"004.{n}": "log lines" for n in (15, 16, 17, 18, 19)},
    "004.20": "RESP",
}
#: Blocks that are compared with responses below, or that other files of tests run.
OTHERWISE = {
    **{f"000.{n}": "test_javascript.py or test_pages.py" for n in (4, 5, 6, 7, 8, 9, 10)},
    "001.13": "test_javascript.py",
    "003.0": "test_javascript.py",
    "003.1": "test_javascript.py",
    "003.6": "test_pages.py",
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
    return list(documents(ran.stdout))


def documents(text: str) -> Sequence[Any]:
    decoder, position, values = json.JSONDecoder(), 0, []
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        values.append(value)
        position += len(text[position:]) - len(text[position:].lstrip())
    return values


def assert_like(key: str, actual: Any) -> None:
    assert not differences(SNIPPETS[key].json, actual), actual


# --- the scenarios, each with the blocks that it runs

Scenario = Callable[[Server], None]
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


@runs("001.10", "001.5")
def a_text_that_is_no_id_is_refused(server: Server) -> None:
    [refused] = run_shell(server, "001.10")
    assert_like("001.5", refused)


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
def test_snippets_run_as_printed(scenario: Scenario, server: Server) -> None:
    scenario(server)


def test_each_snippet_is_run_or_has_a_reason() -> None:
    run = [key for keys in SCENARIOS.values() for key in keys]
    assert len(run) == len(set(run))
    accounted = [*run, *BLOCKS_OUT_OF_REACH, *OTHERWISE, *NOT_YET]
    assert sorted(accounted) == sorted(set(accounted))
    assert set(SNIPPETS) == set(accounted)
    assert set(LINES_OUT_OF_REACH) <= set(run)


def test_the_copies_are_those_of_the_texts() -> None:
    if not ORIGINALS.is_dir():
        pytest.skip("the texts are not beside this checkout")
    for original in ORIGINALS.glob("*.txt"):
        assert (COPIES / original.name).read_bytes() == original.read_bytes()
