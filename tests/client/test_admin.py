"""The client's part about the service as a whole."""

import pytest

from eventjobs.client import ApiError, Client

#: An allowed address without a service: deliveries are retried for days.
UNUSED = "http://127.0.0.1:1/hook"


async def test_the_client_does_the_same(client: Client) -> None:
    assert "echo" in [each["type"] for each in await client.types()]
    assert "default" in [each["queue"] for each in await client.queues()]
    assert [each["name"] for each in await client.schedules()] == ["nightly"]
    assert (await client.pause("schedule", "nightly", "why"))["paused"]["reason"] == "why"
    assert (await client.resume("schedule", "nightly"))["paused"] is None
    job = await client.wait((await client.submit("echo"))["job_id"])
    webhook = await client.add_webhook(UNUSED, types=["echo"], events=["JobCompleted"])
    webhook_id = webhook["webhook_id"]
    assert webhook.pop("secret")
    assert await client.webhook(webhook_id) in await client.webhooks()
    [delivery] = await client.redeliver(webhook_id, after=job["position"] - 1, limit=1)
    assert [each["job_id"] async for each in client.deliveries(webhook_id)] == [delivery]
    await client.remove_webhook(webhook_id)
    with pytest.raises(ApiError) as refused:
        await client.webhook(webhook_id)
    assert refused.value.code == "webhook_not_found"
    assert isinstance(await client.breakers(), list)
