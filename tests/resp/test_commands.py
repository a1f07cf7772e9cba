"""What redis-cli reads: jobs by their keys, what is queued, and what the policy permits."""

from typing import Any
from uuid import UUID

import orjson
import pytest

from eventjobs.auth.principals import Scope
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.resp import keys
from eventjobs.settings import Settings
from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS, NOBODY, ended_job
from tests.support.keys import ADMIN, id_of, make_key
from tests.support.resp import Redis, serving_redis

#: Parsed here: the library of rates reads files when it is imported.
RATES = Settings(address_rates="read=3/minute").address_rates


def key_of(job: dict[str, Any]) -> str:
    return f"job:job_{UUID(job['job_id']).hex}"


async def key_count(redis: Redis, pattern: str = "*") -> int:
    return len(await redis("KEYS", pattern))


async def test_the_printed_commands_work(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="004", concurrency=0, upload_type="echo")
    jobs = [await api.submit("echo", n) for n in range(3)]
    await api("POST", f"/v1/jobs/{jobs[0]['job_id']}/cancel")
    jobs.append(await api.submit("wait"))  # no upload
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert await redis("KEYS", "job:*") == [key_of(each) for each in jobs]
        assert await redis("LLEN", "data_jobs") == 2
        text = await redis("GET", key_of(jobs[0]))
        over_http = await api.get(f"/api/job-status/{key_of(jobs[0])[4:]}")
        assert orjson.loads(text) == over_http.json
        assert over_http.json["status"] == "cancelled"
        assert await redis("GET", f"job:{jobs[0]['job_id']}") == text
        assert await redis("GET", "job:job_abc123") is None


async def test_links_are_those_of_the_service(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="004")
    job = await ended_job(api, await api.submit("echo", 1))
    async with serving_redis(api) as site:
        redis = await site.connect()
        url = orjson.loads(await redis("GET", key_of(job)))["resultUrl"]
        assert url.startswith(f"{api.listening.url}/")
        assert (await api.get(url.removeprefix(api.listening.url))).json == 1


async def test_keys_of_jobs_and_of_the_queue(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, redis_queue="things", upload_type="echo")
    first, second = [await api.submit("echo", n) for n in range(2)]
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert await redis("KEYS", "*") == ["things", key_of(first), key_of(second)]
        assert await redis("KEYS", f"{key_of(first)[:-1]}?") == [key_of(first)]
        assert await redis("KEYS", key_of(second)) == [key_of(second)]
        assert await redis("KEYS", "data*") == []
        exists = await redis("EXISTS", key_of(first), key_of(first), "things", "job:x", "data_jobs")
        assert exists == 3
        assert await redis("TYPE", key_of(first)) == "string"
        assert await redis("TYPE", "things") == "list"
        assert await redis("TYPE", "nothing") == "none"
        values = await redis("MGET", key_of(first), "things", f"job:{NOBODY}", "jobs")
        assert [each is None for each in values] == [False, True, True, True]
        assert (await redis.error("GET", "things")).startswith("WRONGTYPE ")
        assert (await redis.error("LLEN", key_of(first))).startswith("WRONGTYPE ")
        assert await redis("LLEN", "nothing") == 0
        for each in (first, second):
            await api("DELETE", f"/v1/jobs/{each['job_id']}")
        assert await redis("KEYS", "*") == []  # an empty list is no key, and a hidden job none
        assert await redis("EXISTS", "things", key_of(first)) == 0


async def test_keys_are_read_by_page_and_at_most_so_many(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PAGE", 2)
    monkeypatch.setattr(keys, "KEYS_MAX", 5)
    api = await client(*HANDLERS, concurrency=0)
    jobs = [await api.submit("echo", n) for n in range(5)]
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert await redis("KEYS", "job:*") == [key_of(each) for each in jobs]
        await api.submit("echo", 5)
        assert "more than 5 keys match" in await redis.error("KEYS", "job:*")
        assert await redis("KEYS", key_of(jobs[4])) == [key_of(jobs[4])]
        assert "at most 256 bytes" in await redis.error("KEYS", "?" * 257)


async def test_what_clients_ask_at_the_start(client: Connect) -> None:
    api = await client(*HANDLERS)
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert await redis("PING") == "PONG"
        assert await redis("ping", "a\r\nb") == "a\r\nb"
        assert await redis("COMMAND", "DOCS") == []
        assert await redis("SELECT", "0") == "OK"
        assert await redis.error("SELECT", "1") == "ERR DB index is out of range"
        assert await redis("CLIENT", "SETNAME", "x") == "OK"
        assert await redis("CLIENT", "SETINFO", "LIB-NAME", "x") == "OK"
        assert "unknown subcommand" in await redis.error("CLIENT", "KILL")
        hello = await redis("HELLO", "2", "SETNAME", "x")
        assert (hello[:2], hello[4:8]) == (
            ["server", "redis"],
            ["mode", "standalone", "role", "replica"],
        )
        assert len(hello) == 14
        assert (await redis.error("HELLO", "3")).startswith("NOPROTO ")
        assert "syntax" in await redis.error("HELLO", "2", "AUTH", "x")
        await api.submit("echo", 1)
        info = await redis("INFO", "server")
        assert "redis_version:" in info
        assert "db0:keys=1," in info
        assert (await redis.error("AUTH", "x")).startswith("ERR AUTH called")
        assert await redis("QUIT") == "OK"
        assert await redis.is_closed()


async def test_everything_else_is_refused(client: Connect) -> None:
    api = await client(*HANDLERS)
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert (await redis.error("SET", "job:1", "x")).startswith("READONLY ")
        assert await redis.error("EVIL\r\n+OK") == "ERR unknown command 'EVIL??+OK'"
        assert len(await redis.error("X" * 9000)) < 100
        assert await redis.error("GET") == "ERR wrong number of arguments for 'get' command"
        assert (
            await redis.error("KEYS", "a", "b")
            == "ERR wrong number of arguments for 'keys' command"
        )
        assert await redis("PING") == "PONG"


# --- access


async def test_a_token_is_required_and_decides_what_there_is(client: Connect) -> None:
    api = await client(*HANDLERS, auth="required", concurrency=0, upload_type="echo")
    tokens = {each: await make_key(api.service, owner=each) for each in ("ann", "bob")}
    admin = await make_key(api.service, ADMIN, owner="ops")
    jobs = {
        each: (
            await api(
                "POST", "/v1/jobs", {"type": "echo"}, headers={"Authorization": f"Bearer {token}"}
            )
        ).json
        for each, token in tokens.items()
    }
    async with serving_redis(api) as site:
        redis = await site.connect()
        for command in (["PING"], ["GET", key_of(jobs["ann"])], ["KEYS", "*"], ["COMMAND"]):
            assert await redis.error(*command) == "NOAUTH Authentication required."
        assert await redis.error("HELLO", "2") == "NOAUTH Authentication required."
        assert (await redis.error("AUTH", "wrong")).startswith("WRONGPASS ")
        assert (await redis.error("AUTH", "ann", tokens["ann"])).startswith("WRONGPASS ")
        assert await redis("AUTH", tokens["ann"]) == "OK"
        assert await redis("KEYS", "job:*") == [key_of(jobs["ann"])]
        assert await redis("LLEN", "data_jobs") == 1
        assert await redis("GET", key_of(jobs["bob"])) is None
        assert await redis("EXISTS", key_of(jobs["ann"]), key_of(jobs["bob"])) == 1
        assert (await redis.error("AUTH", "wrong")).startswith("WRONGPASS ")
        assert await key_count(redis, "job:*") == 1  # as it was before
        assert (await redis("HELLO", "2", "AUTH", "default", tokens["bob"]))[0] == "server"
        assert await redis("KEYS", "job:*") == [key_of(jobs["bob"])]
        assert await redis("AUTH", "default", admin) == "OK"
        assert await key_count(redis) == 3
        assert await redis("LLEN", "data_jobs") == 2


async def test_a_revoked_key_reads_nothing_more(client: Connect) -> None:
    api = await client(*HANDLERS, auth="optional")
    token = await make_key(api.service, owner="ann")
    async with serving_redis(api) as site:
        redis = await site.connect()
        await redis("AUTH", token)
        assert await redis("KEYS", "*") == []
        await api.service.api_keys.revoke(id_of(token), None, actor="test")
        assert await redis.error("KEYS", "*") == "NOAUTH Authentication required."
        assert await redis.error("PING") == "NOAUTH Authentication required."


async def test_without_a_token_jobs_are_read_by_their_ids_alone(client: Connect) -> None:
    api = await client(*HANDLERS, auth="optional", concurrency=0)
    job = await api.submit("echo", 1)
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert await redis("GET", key_of(job)) is not None
        assert (await redis.error("KEYS", "*")).startswith("NOAUTH ")
        assert (await redis.error("LLEN", "data_jobs")).startswith("NOAUTH ")
        assert "Keyspace" not in await redis("INFO")


async def test_a_key_without_the_scope_reads_no_jobs(client: Connect) -> None:
    api = await client(*HANDLERS, auth="required")
    token = await make_key(api.service, [Scope.SUBMIT])
    async with serving_redis(api) as site:
        redis = await site.connect()
        await redis("AUTH", token)
        assert (await redis.error("KEYS", "*")).startswith("NOPERM ")
        assert (await redis.error("GET", f"job:{NOBODY}")).startswith("NOPERM ")
        assert await redis("PING") == "PONG"


@handler("secret", sensitive=("code",), max_attempts=1)
async def fail_with_secret(context: Context, payload: Any) -> None:
    raise ValueError(f"bad code {payload['code']}")


async def test_sensitive_values_are_for_the_owner(client: Connect) -> None:
    api = await client(fail_with_secret, auth="required")
    ann, admin = await make_key(api.service), await make_key(api.service, ADMIN, owner="ops")
    body = {"type": "secret", "payload": {"code": "secret-tulip"}}
    job = (await api("POST", "/v1/jobs", body, headers={"Authorization": f"Bearer {ann}"})).json
    await api.service.wait(job["job_id"])
    async with serving_redis(api) as site:
        redis = await site.connect()
        await redis("AUTH", ann)
        assert "secret-tulip" in await redis("GET", key_of(job))
        await redis("AUTH", admin)
        text = await redis("GET", key_of(job))
        assert "secret-tulip" not in text
        assert orjson.loads(text)["status"] == "failed"


async def test_commands_count_against_the_rate_of_reads(client: Connect) -> None:
    api = await client(*HANDLERS, address_rates=RATES)
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert (await api.get("/v1/jobs")).status == 200
        assert await redis("PING") == "PONG"
        assert await redis("PING") == "PONG"
        assert (await redis.error("PING")).startswith("ERR rate_limited: try again in ")
        assert (await api.get("/v1/jobs")).status == 429
