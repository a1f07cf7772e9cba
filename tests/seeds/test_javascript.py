"""The snippets of the texts for pages run as they are printed in Node, on one server."""

import re
import subprocess

import pytest

from eventjobs.http.dialects.job_ids import prefixed_id
from tests.conftest import program
from tests.seeds.conftest import submit, wait
from tests.support.seed_texts import snippets
from tests.support.servers import Server

SNIPPETS = snippets()
UNKNOWN = "00000000-0000-4000-8000-000000000000"

#: In a page, addresses are relative to it.
PRELUDE = """
const [, API_BASE_URL, jobId] = process.argv;
const send = fetch;
globalThis.fetch = (url, options) => send(new URL(url, API_BASE_URL), options);
"""


def run_node(server: Server, code: str, job_id: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("node"), "--input-type=module", "-e", PRELUDE + code, server.url, job_id],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines_of(ran: subprocess.CompletedProcess[str]) -> list[str]:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture(scope="module")
def jobs(server: Server) -> dict[str, str]:
    """A job in each final state, by the state."""
    endless = {"steps": 100, "interval_s": 1}
    jobs = {
        "completed": submit(server, "countdown", {"steps": 2, "interval_s": 0.05}),
        "failed": submit(server, "countdown", endless, timeout_s=0.1, max_attempts=1),
        "cancelled": submit(server, "noop", delay_s=600),
    }
    run_node(server, "await fetch(`/v1/jobs/${jobId}/cancel`, {method: 'POST'})", jobs["cancelled"])
    for job_id in jobs.values():
        wait(server, job_id)
    return jobs


def test_a_fetch_that_may_be_aborted(server: Server, jobs: dict[str, str]) -> None:
    code = SNIPPETS["000.4"].code + "console.log(response.status, controller.signal.aborted);"
    assert lines_of(run_node(server, code, jobs["completed"])) == ["200 false"]


CALLBACKS = """
const stopJobPoller = (id) => console.log("stopped", id);
const showJobNotFound = (id) => console.log("not found", id);
const handleJobStatusError = (id, message) => console.log(message);
"""


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_status_is_read(server: Server, jobs: dict[str, str], state: str) -> None:
    code = CALLBACKS + SNIPPETS["001.13"].code + "console.log(status.status);"
    shown = "failed" if state == "cancelled" else state
    assert lines_of(run_node(server, code, jobs[state])) == [shown]


def test_a_missing_job_stops_the_poller(server: Server) -> None:
    code = CALLBACKS + SNIPPETS["001.13"].code
    assert lines_of(run_node(server, code, UNKNOWN)) == [
        f"stopped {UNKNOWN}",
        f"not found {UNKNOWN}",
    ]


def test_an_error_of_the_server_is_one_to_back_off_from(server: Server) -> None:
    stub = "globalThis.fetch = async () => new Response('{}', { status: 503 });"
    code = CALLBACKS + stub + SNIPPETS["001.13"].code
    assert lines_of(run_node(server, code, UNKNOWN)) == ["Server error: 503"]


TOKEN = "const token = 'YOUR_TOKEN';\n"


def test_an_analysis_is_started_and_polled(server: Server) -> None:
    code = TOKEN + SNIPPETS["003.0"].code + SNIPPETS["003.1"].code
    printed = "".join(lines_of(run_node(server, code)))
    assert printed.startswith("Result: {")
    assert "case_id: '123'" in printed


@pytest.mark.parametrize(
    ("state", "message"),
    [("failed", r"Error: .*longer than"), ("cancelled", "Error: Job was cancelled")],
)
def test_an_analysis_that_fails_is_an_error(
    server: Server, jobs: dict[str, str], state: str, message: str
) -> None:
    ran = run_node(server, TOKEN + "const job_id = jobId;" + SNIPPETS["003.1"].code, jobs[state])
    assert ran.returncode == 1
    assert re.search(message, ran.stderr), ran.stderr


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_poller_with_growing_delays(server: Server, jobs: dict[str, str], state: str) -> None:
    code = SNIPPETS["004.9"].code + "console.log((await pollJobStatus(jobId)).status);"
    assert lines_of(run_node(server, code, prefixed_id(jobs[state]))) == [state]


def test_a_poller_gives_up(server: Server) -> None:
    code = (
        SNIPPETS["004.9"].code
        + "await pollJobStatus(jobId, 500).catch((e) => console.log(e.message));"
    )
    assert lines_of(run_node(server, code, prefixed_id(UNKNOWN))) == ["Job polling timeout"]


def test_it_polls_after_1_2_4_8_and_then_every_15_s(server: Server) -> None:
    """No time passes."""
    stub = """
    let polls = 0;
    const next = () => (polls++ < 7 ? "processing" : "completed");
    globalThis.fetch = async () => Response.json({ status: next() });
    globalThis.setTimeout = (callback, ms) => { console.log(ms); callback(); };
    """
    code = stub + SNIPPETS["004.9"].code + "await pollJobStatus(jobId);"
    waits = [1000, 2000, 4000, 8000, 15000, 15000, 15000]
    assert lines_of(run_node(server, code)) == [str(each) for each in waits]
