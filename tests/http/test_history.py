"""A job's history over HTTP."""

from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS, ended_job


async def test_a_history_is_told(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await ended_job(api, await api.submit("fail"))
    history = (await api.get(job["links"]["history"])).json
    assert history["job_id"] == job["job_id"]
    assert history["attempts"][0]["outcome"] == "failed"
    assert history["entries"][0]["text"] == "submitted as fail"
