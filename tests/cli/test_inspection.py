"""`eventjobs inspect`, which answers the questions that redis-cli answers of other services."""

from uuid import UUID

from tests.support.cli import Tool


def test_a_job_a_queue_and_the_jobs_are_inspected(tool: Tool) -> None:
    job_id = tool.ok("submit", "echo", "7", "--tag", "i", "--wait").split()[0]
    prefixed = f"job_{UUID(job_id).hex}"
    for each in (job_id, prefixed):
        assert tool.json("inspect", "job", each, "--json") == tool.json("show", job_id, "--json")
    assert tool.ok("inspect", "jobs", "--status", "completed", "--tag", "i").startswith(job_id)
    queues = tool.json("inspect", "queue", "--json")
    assert "waiting" in next(each for each in queues if each["queue"] == "default")


def test_jobs_are_named_by_either_form_of_the_id(tool: Tool) -> None:
    ids = [tool.run("submit", "fail", "--wait").stdout.split()[0] for _ in range(2)]
    tool.ok("retry", f"job_{UUID(ids[0]).hex}", ids[1])
    missing = tool.run("show", "job_abc123")
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: job_not_found: ")
