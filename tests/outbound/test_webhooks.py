"""Every event of a subscription is delivered once, signed, and retried until it is accepted."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eventjobs.domain.events import AttemptFailed, Event, JobSubmitted
from eventjobs.domain.ids import delivery_id
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import DiskFull, JobError, OutboundRefused
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.outbound.webhooks.deliveries import RETRY_DELAY_S
from eventjobs.outbound.webhooks.sender import SCHEDULE_S
from tests.conftest import Connect, Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.http_client import connect_client
from tests.support.waiting import job_when, recorded_of, time_passing
from tests.support.webhook_receiver import Receiver, deliveries, receiving, subscribe

LOCAL = "127.0.0.0/8"


@handler("work")
async def work(context: Context, payload: Any) -> Any:
    if payload == "bad":
        raise JobError("no_luck", "It did not work.", retryable=False)
    return payload


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def test_the_end_of_a_job_is_told_and_signed(client: Connect, receiver: Receiver) -> None:
    api = await client(work, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver)
    done = await api.submit("work", {"n": 1}, tags=["nightly"])
    bad = await api.submit("work", "bad")
    messages = {each["data"]["job_id"]: each for each in await receiver.has(2)}
    completed, failed = messages[done["job_id"]], messages[bad["job_id"]]
    assert completed["type"] == "JobCompleted"
    assert completed["data"]["event"] == {"attempt": 1, "result": {"n": 1}}
    assert completed["data"]["tags"] == ["nightly"]
    assert failed["type"] == "AttemptFailed"
    assert failed["data"]["event"]["code"] == "no_luck"
    for headers, body in receiver.got:
        Webhook(webhook["secret"]).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(webhook["secret"]).verify(body + b" ", headers)


async def test_a_delivery_is_a_job_that_lists_leave_out_unless_asked(
    client: Connect, receiver: Receiver
) -> None:
    api = await client(work, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver)
    job = await api.submit("work")
    await receiver.has(1)
    [delivery] = await deliveries(api, webhook)
    done = await api.service.wait(delivery["job_id"])
    assert (done.status, done.result) == ("completed", {"status": 200})
    assert [each["job_id"] for each in (await api.get("/v1/jobs")).json["jobs"]] == [job["job_id"]]
    [webhook] = (await api.get("/v1/webhooks")).json["webhooks"]
    assert "secret" not in webhook
    assert webhook["told"] > webhook["position"]
    reply = await api("POST", "/v1/jobs", {"type": "eventjobs.webhook"})
    assert reply.code == "unknown_type", "nobody else can make one"


async def test_only_what_was_asked_for_is_told(client: Connect, receiver: Receiver) -> None:
    @handler("other")
    async def other(context: Context, payload: Any) -> None:
        pass

    api = await client(work, other, outbound_allow=LOCAL)
    await subscribe(api, receiver, events=["AttemptStarted"], types=["other"])
    await api.submit("work")
    await api.submit("other")
    await api.submit("other")
    messages = await receiver.has(2)
    assert {(each["type"], each["data"]["job_type"]) for each in messages} == {
        ("AttemptStarted", "other")
    }
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


async def test_a_webhook_of_an_owner_is_told_of_the_jobs_of_that_owner_alone(
    client: Connect, receiver: Receiver
) -> None:
    api = await client(work, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver, owner="ann")
    for owner in ("bob", None, "ann"):
        job = await api.submit("work", owner=owner)
        await api.service.wait(job["job_id"])
    [message] = await receiver.has(1)
    assert (message["data"]["job_id"], message["data"]["owner"]) == (job["job_id"], "ann")
    [delivery] = await deliveries(api, webhook)
    assert delivery["owner"] == "ann"


async def test_deliveries_go_on_where_they_were_after_a_restart(
    serve: Serve, receiver: Receiver
) -> None:
    """Jobs that ended without a delivery get one after a restart, and the others no second one."""
    service = await serve(work, outbound_allow=LOCAL)
    async with connect_client(service) as api:
        webhook = await subscribe(api, receiver)
        await api.submit("work", 1)
        await receiver.has(1)
        # As a crash would leave it: the job ends, and no delivery is submitted.
        next(each for each in service.supervisor.tasks if each.get_name() == "webhooks").cancel()
        job = await api.submit("work", 2)
        await service.wait(job["job_id"])
    await service.close()
    again = await serve(work, outbound_allow=LOCAL)
    third = await again.submit("work", 3)
    messages = await receiver.has(3)
    results = [each["data"]["event"]["result"] for each in messages]
    assert sorted(results) == [1, 2, 3]
    assert messages[-1]["data"]["job_id"] in (job["job_id"], third.job_id)
    assert again.webhooks.secret(webhook["webhook_id"]) == webhook["secret"]
    for headers, body in receiver.got:
        Webhook(webhook["secret"]).verify(body, headers)


async def test_a_receiver_that_fails_is_tried_on_the_standard_schedule(
    serve: Serve, clock: FakeClock, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 429]
    service = await serve(work, clock=clock, outbound_allow=LOCAL)
    async with connect_client(service) as api:
        webhook = await subscribe(api, receiver)
        job = await api.submit("work")
        ended = await service.wait(job["job_id"])
        job_id = delivery_id(webhook["webhook_id"], ended.position)
        await job_when(service, job_id, lambda job: job.attempt == 1 and job.status == "queued")
        done = await time_passing(clock, service.wait(job_id), 60)
    assert (done.status, done.attempt) == ("completed", 4)
    failures = await recorded_of(service, job_id, AttemptFailed)
    for failed, delay_s in zip(failures, SCHEDULE_S, strict=False):
        assert isinstance(failed.event, AttemptFailed)
        assert failed.event.retry_at_us is not None
        waits_s = (failed.event.retry_at_us - failed.at_us) / SECOND
        assert delay_s <= waits_s <= 1.1 * delay_s
    bodies = {body for _, body in receiver.got}
    names = {headers["webhook-id"] for headers, _ in receiver.got}
    assert (len(receiver.got), len(bodies), len(names)) == (4, 1, 1), "the same message each time"


async def test_a_receiver_that_is_gone_is_told_no_more(client: Connect, receiver: Receiver) -> None:
    receiver.answers = [410]
    api = await client(work, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver)
    job = await api.submit("work")
    ended = await api.service.wait(job["job_id"])
    job_id = delivery_id(webhook["webhook_id"], ended.position)
    await job_when(api.service, job_id, lambda job: job.finished)
    assert (await api.get(f"/v1/webhooks/{webhook['webhook_id']}")).code == "webhook_not_found"
    [*_, last] = (await api.get(f"/v1/events?id={job_id}")).json["events"]
    assert last["data"]["code"] == "gone"


async def test_what_was_received_can_be_sent_again(client: Connect, receiver: Receiver) -> None:
    api = await client(work, outbound_allow=LOCAL)
    early = await api.submit("work", "before there was anybody to tell")
    await api.service.wait(early["job_id"])
    webhook = await subscribe(api, receiver)
    job = await api.submit("work", "after")
    await receiver.has(1)
    for each in await deliveries(api, webhook):
        await api.service.wait(each["job_id"])
    address = webhook["links"]["redeliver"]
    reply = await api("POST", address, {"after": 0})
    assert reply.status == 202
    assert len(reply.json["deliveries"]) == 2
    messages = await receiver.has(3)
    assert sorted(each["data"]["job_id"] for each in messages) == sorted(
        [early["job_id"], job["job_id"], job["job_id"]]
    )
    again = [h["webhook-id"] for h, body in receiver.got if job["job_id"].encode() in body]
    assert again[0] == again[1], "its receiver can tell that it had it"


async def test_an_event_is_sent_again_by_the_delivery_that_it_has(
    client: Connect, clock: FakeClock, receiver: Receiver
) -> None:
    """One that waits is left alone. One that has ended is retried, and its schedule starts anew."""
    receiver.answers = [500, 500]
    api = await client(work, clock=clock, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver)
    job = await api.submit("work")
    ended = await api.service.wait(job["job_id"])
    job_id = delivery_id(webhook["webhook_id"], ended.position)

    async def send_again() -> None:
        reply = await api("POST", webhook["links"]["redeliver"], {"after": 0})
        assert reply.json["deliveries"] == [job_id]

    await job_when(api.service, job_id, lambda job: job.attempt == 1 and job.status == "queued")
    await send_again()
    assert len(receiver.got) == 1
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    await send_again()
    await job_when(api.service, job_id, lambda job: job.attempt == 2 and job.status == "queued")
    for failed in await recorded_of(api.service, job_id, AttemptFailed):
        assert isinstance(failed.event, AttemptFailed)
        assert failed.event.retry_at_us is not None
        assert failed.event.retry_at_us - failed.at_us <= 1.1 * SCHEDULE_S[0] * SECOND


async def test_a_delivery_to_an_address_that_is_no_longer_allowed_is_not_repeated(
    client: Connect, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post(*given: Any, **more: Any) -> None:
        raise OutboundRefused("no longer")

    api = await client(work, outbound_allow=LOCAL)
    monkeypatch.setattr(api.service.outbound, "post", post)
    webhook = await subscribe(api, receiver)
    job = await api.submit("work")
    ended = await api.service.wait(job["job_id"])
    job_id = delivery_id(webhook["webhook_id"], ended.position)
    delivery = await job_when(api.service, job_id, lambda job: job.error is not None)
    assert delivery.error is not None
    assert (delivery.status, delivery.error["code"]) == ("failed", "outbound_refused")


async def test_an_event_whose_delivery_is_hidden_can_be_sent_again(
    client: Connect, receiver: Receiver
) -> None:
    """A cancelled delivery is retried; one that is hidden, too, cannot be: there is a new one."""
    receiver.answers = [500]
    api = await client(work, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver)
    job = await api.submit("work")
    ended = await api.service.wait(job["job_id"])
    job_id = delivery_id(webhook["webhook_id"], ended.position)
    await job_when(api.service, job_id, lambda job: job.attempt == 1 and job.status == "queued")
    assert (await api("POST", f"/v1/jobs/{job_id}/cancel")).json["status"] == "cancelled"
    assert (await api("DELETE", f"/v1/jobs/{job_id}")).status == 204
    reply = await api("POST", webhook["links"]["redeliver"], {"after": 0})
    assert reply.status == 202, reply.body
    assert reply.json["deliveries"] == [delivery_id(webhook["webhook_id"], ended.position, 1)]
    await receiver.has(2)


async def test_a_job_is_no_webhook_and_cannot_be_removed_as_one(client: Connect) -> None:
    api = await client(remote("far"))
    job = await api.submit("far")
    reply = await api("DELETE", f"/v1/webhooks/{job['job_id']}")
    assert (reply.status, reply.code) == (404, "webhook_not_found")
    assert (await api("POST", f"/v1/jobs/{job['job_id']}/cancel")).json["status"] == "cancelled"


async def test_a_removed_webhook_is_told_nothing(client: Connect, receiver: Receiver) -> None:
    api = await client(work, outbound_allow=LOCAL)
    webhook = await subscribe(api, receiver)
    for _ in range(2):
        assert (await api("DELETE", webhook["links"]["self"])).status == 204
    other = await subscribe(api, receiver)
    await api.submit("work")
    await receiver.has(1)
    [delivery] = await deliveries(api, other)
    assert delivery["tags"] == [f"webhook:{other['webhook_id']}"]
    assert await deliveries(api, webhook) == []
    redelivered = await api("POST", webhook["links"]["redeliver"], {"after": 0})
    assert redelivered.code == "webhook_not_found"


async def test_a_webhook_that_is_removed_gets_no_delivery_of_later_events(
    client: Connect, receiver: Receiver
) -> None:
    """No delivery job is made, though the events are read for another webhook."""
    api = await client(work, outbound_allow=LOCAL)
    removed, other = [await subscribe(api, receiver) for _ in range(2)]
    await api.submit("work")
    await receiver.has(2)
    assert (await api("DELETE", removed["links"]["self"])).status == 204
    await api.submit("work")
    await receiver.has(3)
    await api.service.views.wait_for_position(api.service.log.head)
    assert [len(await deliveries(api, each)) for each in (removed, other)] == [1, 2]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"url": "http://127.0.0.1/"}, "outbound_refused"),
        ({"url": "http://10.0.0.1/"}, "outbound_refused"),
        ({"url": "http://[::1]/"}, "outbound_refused"),
        ({"url": "ftp://example.org/"}, "outbound_refused"),
        ({"url": "http://ann:secret@example.org/"}, "outbound_refused"),
        ({"url": "https://example.org/", "events": ["JobEnded"]}, "invalid_input"),
        ({"url": "https://example.org/", "secret": "mine"}, "invalid_input"),
        ({}, "invalid_input"),
    ],
)
async def test_what_cannot_be_told_is_refused(client: Connect, given: Any, code: str) -> None:
    api = await client(work)
    reply = await api("POST", "/v1/webhooks", given)
    assert (reply.status, reply.code) == (422, code)
    assert (await api.get("/v1/webhooks")).json == {"webhooks": [], "next": None}


async def test_a_log_that_is_full_for_a_while_loses_no_delivery(
    client: Connect, clock: FakeClock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(work, clock=clock, outbound_allow=LOCAL)
    await subscribe(api, receiver)
    append = api.service.log.append
    refused_s: list[float] = []

    async def failing(job_id: str, version: int, event: Event, *, actor: str) -> Recorded:
        if isinstance(event, JobSubmitted) and actor == "webhooks" and len(refused_s) < 3:
            refused_s.append(clock.monotonic_s())
            raise DiskFull
        return await append(job_id, version, event, actor=actor)

    monkeypatch.setattr(api.service.log, "append", failing)
    await api.submit("work")
    await time_passing(clock, receiver.has(1))
    pauses_s = [later - before for before, later in pairwise(refused_s)]
    assert pauses_s == [RETRY_DELAY_S] * 2


async def test_a_large_event_is_told_of_without_its_data(
    client: Connect, receiver: Receiver
) -> None:
    api = await client(work, outbound_allow=LOCAL)
    await subscribe(api, receiver)
    job = await api.submit("work", "x" * 30_000)
    [message] = await receiver.has(1)
    assert message["data"]["event"] is None
    assert message["data"]["url"] == f"/v1/jobs/{job['job_id']}"


async def test_webhooks_are_as_the_log_says_after_a_rebuild(
    client: Connect, receiver: Receiver
) -> None:
    api = await client(work, outbound_allow=LOCAL)
    await subscribe(api, receiver, types=["work"])
    await api.submit("work")
    await receiver.has(1)
    before = (await api.get("/v1/webhooks")).json
    assert (await api("POST", "/v1/views/rebuild")).status == 200
    assert (await api.get("/v1/webhooks")).json == before


@handler("charge", sensitive=("card",))
async def charge(context: Context, payload: Any) -> Any:
    return payload


async def test_a_message_has_no_value_of_a_sensitive_field(
    client: Connect, receiver: Receiver
) -> None:
    api = await client(charge, outbound_allow=LOCAL)
    await subscribe(api, receiver)
    card = "4111111111111111"
    await api.submit("charge", {"card": card, "sum": 5}, tags=["card " + card])
    [message] = await receiver.has(1)
    assert message["data"]["event"]["result"] == {"card": "[hidden]", "sum": 5}
    assert message["data"]["tags"] == ["card [hidden]"]
    assert message["data"]["masked"] is True
    assert card.encode() not in receiver.got[0][1]
