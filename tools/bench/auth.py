"""Requests with a credential, beside the same requests to a service without authentication.

The child of this module imports the service; the section does not.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from aiohttp.test_utils import make_mocked_request

from eventjobs.auth.policy import Action, JobFacts, permits
from eventjobs.auth.principals import USER_SCOPES
from eventjobs.http.auth import Authenticator
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.session_cookies import PLAIN_NAME, SessionCookies
from eventjobs.service import Service

from .http import MISSING, POST, has_wrk, submit, wrk
from .processes import Answer, Bench, say
from .report import PART_US, REQUESTS, Row

OWNER = "bench"
SECRET = "a secret of the benchmark, for HS256"  # noqa: S105
HEADER = "Authorization"
#: Checks of a known key for each check of a new one.
NEW_KEYS = 200


def settings() -> dict[str, Any]:
    """The settings of a service that requires a credential."""
    return {"auth": "required", "jwt_secret": SECRET}


# --- in the process of the service


def commands(service: Service) -> dict[str, Callable[..., Awaitable[Answer]]]:
    """The commands of this module, to a child that serves *service*."""

    async def credentials() -> Answer:
        return await make_credentials(service)

    async def checks(headers: dict[str, str], count: int) -> Answer:
        return await check_us(service, headers, count)

    return {"credentials": credentials, "checks": checks}


async def make_credentials(service: Service) -> Answer:
    """The headers of requests with a key, a session and a JWT of the same owner."""
    key = await make_key(service)
    session, _ = service.sessions.begin(await service.credentials.verify(key))
    expires_s = service.clock.now_us() // 1_000_000 + 3600
    token = jwt.encode({"sub": OWNER, "exp": expires_s}, SECRET, "HS256")
    return {
        "key": {HEADER: f"Bearer {key}"},
        "session": {"Cookie": f"{PLAIN_NAME}={session}"},
        "JWT": {HEADER: f"Bearer {token}"},
    }


async def make_key(service: Service) -> str:
    _, key = await service.api_keys.create(
        OWNER, owner=OWNER, scopes=tuple(USER_SCOPES), actor=OWNER
    )
    return key


async def check_us(service: Service, headers: dict[str, str], count: int) -> Answer:
    """The CPU microseconds to find out, and to permit, who sends a request with *headers*: when the
    credential is known, and when it is not.
    """
    cookies = SessionCookies(TrustedProxies(()))
    authenticator = Authenticator(service.settings, service.credentials, cookies)
    facts = JobFacts(OWNER)
    request = make_mocked_request("GET", "/", headers)
    await authenticator.authenticate(request)
    began_s = time.process_time()
    for _ in range(count):
        principal = authenticator.get_cached(request)
        assert principal is not None
        assert permits(principal, Action.READ, facts)
    all_s = time.process_time() - began_s
    new = [await make_key(service) for _ in range(max(1, count // NEW_KEYS))]
    began_s = time.process_time()
    for key in new:
        await service.credentials.verify(key)
    first_s = time.process_time() - began_s
    return {"known": all_s / count * 1e6, "first": first_s / len(new) * 1e6}


# --- the section


def rates(bench: Bench) -> list[Row]:
    """Rates with each credential, and the share that the check of a key has of a request."""
    limit = "the same without authentication"
    gets = {
        name: Row(f"GET /v1/jobs/{{id}} with {what}", REQUESTS, limit)
        for name, what in (("key", "a key"), ("session", "a session"), ("JWT", "a JWT"))
    }
    post = Row("POST /v1/jobs with a key", REQUESTS, limit)
    check = Row("check of a known key", PART_US, "CPU of a whole GET with it")
    first_check = Row("first check of a key, from the log", PART_US, check.limit)
    rows = [*gets.values(), post, check, first_check]
    if not has_wrk():
        return [Row(each.what, REQUESTS, MISSING) for each in rows]
    script = bench.directory / "post.lua"
    script.write_text(POST)
    off = bench.service(0)
    child, at = required = bench.server("serve_http", **bench.parameters(0), required=True)
    headers = child.call("credentials")
    path = f"/v1/jobs/{submit(at, headers['key'])}"
    path_off = f"/v1/jobs/{submit(off[1])}"
    for number in range(bench.size.runs):
        say(f"auth, run {number + 1}")
        raw = wrk(bench, off, path_off)
        for name, row in gets.items():
            row.add(sample := wrk(bench, required, path, headers=headers[name]), raw)
            if name == "key":
                whole_us = sample.cpu_us
        post.add(
            wrk(bench, required, "/v1/jobs", script, headers["key"]),
            wrk(bench, off, "/v1/jobs", script),
        )
        answer = child.call("checks", headers=headers["key"], count=bench.size.checks)
        check.add(answer["known"], whole_us)
        first_check.add(answer["first"], whole_us)
    return rows
