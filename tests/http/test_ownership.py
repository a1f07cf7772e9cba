"""What belongs to another owner is not shown, not counted, not streamed and not changed."""

import asyncio
from typing import Any
from uuid import uuid4

from eventjobs.auth.principals import USER_SCOPES, Scope
from eventjobs.domain.ids import child_id, id_of_key, legacy_id_of_key
from eventjobs.handlers.declare import handler
from tests.conftest import Connect
from tests.support.http_jobs import echo
from tests.support.keys import id_of
from tests.support.owners import ANN, BOB, job_ids, open_site, until_contains
from tests.support.waiting import job_when

# --- reads


async def test_lists_counts_and_events_are_of_the_owner(client: Connect) -> None:
    site = await open_site(client)
    anns, bobs = await site.submit(ANN), await site.submit(BOB)
    for name, ids in ((ANN, [anns]), (BOB, [bobs]), ("ops", [bobs, anns]), ("audit", [bobs, anns])):
        assert job_ids(await site.get(name, "/v1/jobs")) == ids
        assert job_ids(await site.get(name, f"/v1/jobs?id={anns},{bobs}")) == ids
        counts = (await site.get(name, "/v1/counts")).json["counts"]
        assert counts == {"echo": {"queued": len(ids)}}
    for name, job_id in ((ANN, anns), (BOB, bobs)):
        events = (await site.get(name, "/v1/events")).json["events"]
        assert [each["job_id"] for each in events] == [job_id]
    for name in ("ops", "audit"):  # they see the events of keys, too
        events = (await site.get(name, "/v1/events")).json["events"]
        assert {anns, bobs} < {each["job_id"] for each in events}
    assert (await site.get(ANN, f"/v1/jobs?owner={BOB}")).code == "forbidden"
    assert job_ids(await site.get("ops", f"/v1/jobs?owner={BOB}")) == [bobs]
    named = await site.get(ANN, f"/v1/events?id={anns},{bobs}")
    assert (named.status, named.code) == (404, "job_not_found")


async def test_not_yours_and_not_there_are_one_answer(client: Connect) -> None:
    site = await open_site(client)
    bobs, missing = await site.submit(BOB), str(uuid4())
    paths = ["", "/events", "/logs", "/history", "/why", "/receipt", "/artifacts/x"]
    requests = [("GET", path) for path in paths]
    requests += [("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]
    for method, path in requests:
        answers = []
        for job_id in (bobs, missing):
            reply = await site.send(ANN, method, f"/v1/jobs/{job_id}{path}")
            assert reply.code == "job_not_found"
            body = {**reply.json, "request_id": None, "instance": None}
            same = {name: reply.headers[name] for name in ("Content-Type", "Cache-Control")}
            answers.append((reply.status, body, same))
        assert answers[0] == answers[1], (method, path)
    assert (await site.get(BOB, f"/v1/jobs/{bobs}")).json["status"] == "queued"


async def test_conditions_tell_nothing_about_another_owners_job(client: Connect) -> None:
    site = await open_site(client)
    bobs = await site.submit(BOB)
    etag = (await site.get(BOB, f"/v1/jobs/{bobs}")).headers["ETag"]
    for name in ("If-None-Match", "If-Match"):
        for value in (etag, '"99"', "*"):
            reply = await site.send(ANN, "GET", f"/v1/jobs/{bobs}", headers={name: value})
            assert reply.status == 404
            reply = await site.send(ANN, "POST", f"/v1/jobs/{bobs}/cancel", headers={name: value})
            assert reply.status == 404


async def test_a_cursor_counts_for_the_owner_who_got_it(client: Connect) -> None:
    site = await open_site(client)
    for _ in range(3):
        await site.submit(BOB)
    cursor = (await site.get(BOB, "/v1/jobs?limit=1")).json["next"]
    assert len(job_ids(await site.get(BOB, f"/v1/jobs?limit=5&cursor={cursor}"))) == 2
    reply = await site.get(ANN, f"/v1/jobs?limit=5&cursor={cursor}")
    assert (reply.status, reply.code) == (400, "bad_cursor")


async def test_why_names_only_jobs_that_its_reader_may_see(client: Connect) -> None:
    @handler("single", concurrency=1)
    async def single(context: Any, payload: Any) -> None:
        await asyncio.Event().wait()

    site = await open_site(client, single, concurrency=4)
    bobs = await site.submit(BOB, "single")
    await job_when(site.api.service, bobs, lambda job: job.status == "running")
    anns = await site.submit(ANN, "single")
    for name, named in ((ANN, False), ("ops", True)):
        reply = await site.get(name, f"/v1/jobs/{anns}/why")
        [reason] = [each for each in reply.json["reasons"] if each["code"] == "type_limit"]
        assert reason["running"] == 1
        assert (bobs in reply.body.decode()) == named


# --- submissions


async def test_an_idempotency_key_counts_for_its_owner(client: Connect) -> None:
    site = await open_site(client)
    headers = {"Idempotency-Key": "order-17"}
    body = {"type": "echo", "payload": 1}
    ids = {
        name: (await site.send(name, "POST", "/v1/jobs", body, headers=headers)).json["job_id"]
        for name in (ANN, BOB)
    }
    assert ids[ANN] != ids[BOB]
    again = await site.send(ANN, "POST", "/v1/jobs", body, headers=headers)
    assert (again.status, again.json["job_id"]) == (200, ids[ANN])
    line = b'{"type":"echo","payload":2,"idempotency_key":"order-17"}\n'
    named = {"Content-Type": "application/x-ndjson"}
    batch = await site.send(BOB, "POST", "/v1/jobs/batch", data=line, headers=named)
    assert batch.json["error"]["code"] == "idempotency_key_reused"
    batch = await site.send("ops", "POST", "/v1/jobs/batch", data=line, headers=named)
    assert batch.json["status"] == 202


async def test_an_idempotency_key_of_another_owner_is_neither_found_nor_taken(
    client: Connect,
) -> None:
    """Its job's id can be computed by those who guess the key."""
    site = await open_site(client, owner_queued_max=1)
    answers = []
    for job_id in (id_of_key("order-17", ANN), legacy_id_of_key("order-18", ANN)):
        for _ in range(2):  # before and after the submission with the key
            answers.append(await site.send(BOB, "PUT", f"/v1/jobs/{job_id}", {"type": "echo"}))
            headers = {"Idempotency-Key": "order-17"}
            reply = await site.send(ANN, "POST", "/v1/jobs", {"type": "echo"}, headers=headers)
            assert reply.json["owner"] == ANN, reply.body
    assert [each.code for each in answers[:2]] == ["reserved_id", "reserved_id"]
    assert answers[0].json["detail"] == answers[1].json["detail"]
    headers = {"Idempotency-Key": "order-18"}
    reply = await site.send(ANN, "POST", "/v1/jobs", {"type": "echo"}, headers=headers)
    assert (reply.status, reply.code) == (429, "owner_limit"), "jobs of keys count, too"


async def test_the_id_of_another_owners_job_is_taken_and_no_more(client: Connect) -> None:
    site = await open_site(client)
    bobs = await site.submit(BOB)
    body = {"type": "echo"}
    for headers in ({}, {"If-None-Match": "*"}, {"If-Match": '"1"'}):
        reply = await site.send(ANN, "PUT", f"/v1/jobs/{bobs}", body, headers=headers)
        assert (reply.status, reply.code) == (409, "job_exists")
    await site.send(BOB, "DELETE", f"/v1/jobs/{bobs}")
    reply = await site.send(ANN, "PUT", f"/v1/jobs/{bobs}", body)
    assert (reply.status, reply.code) == (409, "job_exists")  # not 410, with the time


async def test_a_submission_names_only_jobs_that_its_sender_may_read(client: Connect) -> None:
    site = await open_site(client)
    bobs = await site.submit(BOB)
    for spec in ({"after": [bobs]}, {"parent": bobs}):
        reply = await site.send(ANN, "POST", "/v1/jobs", {"type": "echo", **spec})
        assert (reply.status, reply.code) == (422, "unknown_job")
        assert (await site.send(BOB, "POST", "/v1/jobs", {"type": "echo", **spec})).status == 202
        assert (await site.send("ops", "POST", "/v1/jobs", {"type": "echo", **spec})).status == 202


async def test_only_an_administrator_names_another_owner(client: Connect) -> None:
    site = await open_site(client)
    reply = await site.send(ANN, "POST", "/v1/jobs", {"type": "echo", "owner": BOB})
    assert (reply.status, reply.code) == (403, "forbidden")
    assert (await site.send(ANN, "POST", "/v1/jobs", {"type": "echo", "owner": ANN})).status == 202
    job_id = await site.submit("ops", owner=BOB)
    job = (await site.get(BOB, f"/v1/jobs/{job_id}")).json
    assert job["owner"] == BOB
    [event] = (await site.get(BOB, f"/v1/jobs/{job_id}/events")).json["events"]
    assert event["actor"] == f"key:{id_of(site.keys['ops'])}"


async def test_a_child_has_the_owner_of_its_parent(client: Connect) -> None:
    @handler("parent")
    async def parent(context: Any, payload: Any) -> str:
        return str(await context.submit("echo", 1, name="part"))

    site = await open_site(client, parent, echo, concurrency=4)
    job_id = await site.submit(ANN, "parent")
    await job_when(site.api.service, job_id, lambda job: job.finished)
    child = child_id(job_id, "part")
    assert (await site.get(ANN, f"/v1/jobs/{child}")).json["owner"] == ANN
    assert (await site.get(BOB, f"/v1/jobs/{child}")).status == 404


async def test_webhooks_are_of_an_owner(client: Connect) -> None:
    site = await open_site(client, outbound_allow="127.0.0.1:9")
    body = {"url": "http://127.0.0.1:9/hook"}
    anns = (await site.send(ANN, "POST", "/v1/webhooks", body)).json
    assert anns["owner"] == ANN
    for owner in (BOB, "ops"):
        reply = await site.send(ANN, "POST", "/v1/webhooks", {**body, "owner": owner})
        assert reply.code == "forbidden"
    await site.add("both", Scope.AUDIT, *USER_SCOPES)  # it reads all jobs, and controls its own
    assert (await site.send("both", "POST", "/v1/webhooks", body)).json["owner"] == "both"
    reply = await site.send("both", "POST", "/v1/webhooks", {**body, "owner": ANN})
    assert reply.code == "forbidden"
    boths = (await site.get("both", "/v1/webhooks")).json["webhooks"][1]
    alls = (await site.send("ops", "POST", "/v1/webhooks", body)).json
    assert alls["owner"] is None
    for name, expected in ((ANN, [anns]), (BOB, []), ("ops", [anns, boths, alls])):
        listed = (await site.get(name, "/v1/webhooks")).json["webhooks"]
        assert [each["webhook_id"] for each in listed] == [each["webhook_id"] for each in expected]


# --- workers


async def test_workers_of_two_principals_with_one_name_are_two(client: Connect) -> None:
    site = await open_site(client)
    for name, scope in (("near", "worker:far"), ("twin", "worker:*"), ("mail", "worker:mail")):
        await site.add(name, scope)
    job_id = await site.submit(ANN, "far")
    claim = {"worker": "w", "types": ["far"], "wait_s": 0}
    refused = await site.send("mail", "POST", "/v1/work/claim", claim)
    assert (refused.status, refused.code) == (403, "forbidden")
    claimed = await site.send("near", "POST", "/v1/work/claim", claim)
    assert [each["job_id"] for each in claimed.json["jobs"]] == [job_id]
    for name, status in (("twin", 409), ("mail", 404), ("near", 200)):
        beat = f"/v1/work/{job_id}/1/heartbeat"
        assert (await site.send(name, "POST", beat, {"worker": "w"})).status == status
        assert (await site.get(name, f"/v1/jobs/{job_id}")).status == (
            200 if name == "near" else 404
        )
    held = {**claim, "holds": []}  # the twin asks for jobs whose claim was not answered
    assert (await site.send("twin", "POST", "/v1/work/claim", held)).json["jobs"] == []
    done = {"worker": "w", "jobs": [{"job_id": job_id, "attempt": 1}]}
    several = await site.send("mail", "POST", "/v1/work/complete", done)
    assert [each["status"] for each in several.json["jobs"]] == [404]
    ended = await site.send("near", "POST", f"/v1/work/{job_id}/1/complete", {"worker": "w"})
    assert ended.status == 200
    assert (await site.get("near", f"/v1/jobs/{job_id}")).status == 404  # it holds it no longer
    assert (await site.get(ANN, f"/v1/jobs/{job_id}")).json["status"] == "completed"


async def test_a_worker_without_the_scope_to_submit_submits_children(client: Connect) -> None:
    site = await open_site(client)
    await site.add("near", "worker:far")
    job_id = await site.submit(ANN, "far")
    claim = {"worker": "w", "types": ["far"], "wait_s": 0}
    await site.send("near", "POST", "/v1/work/claim", claim)
    child = child_id(job_id, "part")
    header = f"parent={job_id}&attempt=1&worker=w&name=part"
    body = {"type": "echo", "parent": job_id}
    for name, status in (("near", 202), (BOB, 403)):
        reply = await site.send(
            name, "PUT", f"/v1/jobs/{child}", body, headers={"Eventjobs-Child": header}
        )
        assert reply.status == status, reply.body
    assert (await site.get("near", f"/v1/jobs/{child}")).json["owner"] == ANN
    assert (await site.get(ANN, f"/v1/jobs/{child}")).status == 200
    assert (await site.get(BOB, f"/v1/jobs/{child}")).status == 404


# --- streams


async def test_streams_have_the_jobs_of_the_owner(client: Connect) -> None:
    site = await open_site(client)
    async with site.stream(ANN, "/v1/jobs") as jobs, site.stream(ANN, "/v1/events") as events:
        bobs, anns = await site.submit(BOB), await site.submit(ANN)
        for each in (jobs, events):
            received = await until_contains(each, anns)
            assert bobs not in received.decode()
    again = await site.submit(BOB)
    for path in (f"/v1/jobs/{again}", f"/v1/jobs/{again}/events", f"/v1/events?id={anns},{again}"):
        async with site.stream(ANN, path) as refused:
            assert refused.status == 404
    async with site.stream(ANN, f"/v1/jobs?owner={BOB}") as refused:
        assert refused.status == 403
