"""A file may be named by its owner only: a hash gives no access to another's file."""

from typing import Any

import pytest

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.http_jobs import echo
from tests.support.keys import ADMIN, bearer, make_key
from tests.support.waiting import job_when

JOBS = "/v1/jobs"
Headers = dict[str, str]


@handler("write")
async def write(ctx: Context, payload: Any) -> None:
    await ctx.artifact("out.txt", payload.encode())


async def upload(api: Client, headers: Headers, content: bytes) -> str:
    reply = await api("POST", "/v1/artifacts", data=content, headers=headers)
    assert reply.status == 201, reply.body
    sha256: str = reply.json["sha256"]
    return sha256


async def submit(api: Client, headers: Headers, sha256: str, **more: Any) -> Any:
    body = {"type": "echo", "artifacts": {"in.txt": sha256}, **more}
    return await api("POST", JOBS, body, headers=headers)


async def users(api: Client, *owners: str) -> list[Headers]:
    return [bearer(await make_key(api.service, owner=owner)) for owner in owners]


async def test_a_file_of_another_owner_is_as_one_that_does_not_exist(client: Connect) -> None:
    api = await client(echo, concurrency=0, auth="required")
    ann, bob = await users(api, "ann", "bob")
    sha256 = await upload(api, ann, b"of ann")
    theirs, missing = await submit(api, bob, sha256), await submit(api, bob, "0" * 64)
    for reply, named in ((theirs, sha256), (missing, "0" * 64)):
        assert (reply.status, reply.code) == (422, "unknown_artifact")
        [error] = reply.json["errors"]
        assert error == {"field": "artifacts.in.txt", "message": f"{named} is not here"}
    batch = await api(
        "POST",
        JOBS + "/batch",
        data=b'{"type":"echo","artifacts":{"in.txt":"%b"}}' % sha256.encode(),
        headers=bob | {"Content-Type": "application/x-ndjson"},
    )
    assert batch.json["error"]["code"] == "unknown_artifact"
    assert (await submit(api, ann, sha256)).status == 202
    assert await upload(api, bob, b"of ann") == sha256  # who has the content may upload it
    assert (await submit(api, bob, sha256)).status == 202


async def test_a_file_of_ones_own_job_may_be_given_to_another_job(client: Connect) -> None:
    api = await client(echo, write, auth="required")
    ann, bob = await users(api, "ann", "bob")
    job = (await api("POST", JOBS, {"type": "write", "payload": "x"}, headers=ann)).json
    await job_when(api.service, job["job_id"], lambda each: each.finished)
    [file] = (await api("GET", f"{JOBS}/{job['job_id']}", headers=ann)).json["artifacts"]
    assert (await submit(api, bob, file["sha256"])).code == "unknown_artifact"
    assert (await submit(api, ann, file["sha256"])).status == 202
    await api.service.views.rebuild()
    assert (await submit(api, bob, file["sha256"])).code == "unknown_artifact"
    assert (await submit(api, ann, file["sha256"])).status == 202


async def test_an_administrator_gives_files_of_an_owner_to_that_owners_job(
    client: Connect,
) -> None:
    api = await client(echo, concurrency=0, auth="required")
    [ann] = await users(api, "ann")
    admin = bearer(await make_key(api.service, ADMIN, owner="root"))
    sha256 = await upload(api, ann, b"of ann")
    assert (await submit(api, admin, sha256)).code == "unknown_artifact"
    assert (await submit(api, admin, sha256, owner="ann")).status == 202


async def test_a_worker_attaches_what_it_uploaded_and_what_the_job_has(client: Connect) -> None:
    api = await client(remote("far"), concurrency=0, auth="required")
    ann, bob = await users(api, "ann", "bob")
    worker = bearer(await make_key(api.service, ["worker:far"], owner="machines"))
    given, foreign = await upload(api, ann, b"given"), await upload(api, bob, b"foreign")
    output = await upload(api, worker, b"output")
    body = {"type": "far", "artifacts": {"in.txt": given}}
    job_id = (await api("POST", JOBS, body, headers=ann)).json["job_id"]
    claim = {"worker": "w", "types": ["far"], "max": 1, "wait_s": 0}
    claimed = await api("POST", "/v1/work/claim", claim, headers=worker)
    assert [each["job_id"] for each in claimed.json["jobs"]] == [job_id]

    async def attach(name: str, sha256: str) -> Any:
        body = {"worker": "w", "name": name, "sha256": sha256, "media_type": "text/plain"}
        path = f"/v1/work/{job_id}/1/artifact"
        return await api("POST", path, body, headers=worker)

    assert (await attach("a", foreign)).code == "unknown_artifact"
    assert (await attach("b", output)).status == 200
    assert (await attach("c", given)).status == 200
    [job] = [await api("GET", f"{JOBS}/{job_id}", headers=ann)]
    assert [each["name"] for each in job.json["artifacts"]] == ["in.txt", "b", "c"]
    again = await api("POST", JOBS, {"type": "far", "artifacts": {"x": output}}, headers=ann)
    assert again.status == 202  # it is a file of ann's job now


async def test_without_authentication_every_stored_file_may_be_named(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    assert (await submit(api, {}, await upload(api, {}, b"x"))).status == 202


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_owner_may_have_so_many_bytes(client: Connect, chunked: bool) -> None:
    api = await client(echo, concurrency=0, auth="optional", owner_bytes_max=10)
    ann, bob = await users(api, "ann", "bob")

    async def parts(content: bytes) -> Any:
        for byte in content:
            yield bytes([byte])

    def data(content: bytes) -> Any:
        return parts(content) if chunked else content

    await upload(api, ann, data(b"12345"))
    reply = await api("POST", "/v1/artifacts", data=data(b"123456"), headers=ann)
    assert (reply.status, reply.code) == (413, "owner_bytes_limit")
    await upload(api, ann, data(b"54321"))
    await upload(api, bob, data(b"1234567890"))
    await upload(api, {}, data(b"1234567890"))  # all anonymous requests are one owner
    reply = await api("POST", "/v1/artifacts", data=data(b"1"), headers={})
    assert (reply.status, reply.code) == (413, "owner_bytes_limit")
