"""Rate limits: what is counted for whom, and how a refusal looks."""

import re
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from eventjobs.auth.principals import USER_SCOPES, Principal
from eventjobs.errors import InvalidCredential
from eventjobs.http import rate_limits
from eventjobs.http.proxies import client_network
from eventjobs.http.rate_limits import RequestRate
from eventjobs.settings import Settings
from eventjobs.settings.formats import parse_rate
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS

JOBS = "/v1/jobs"
ECHO = {"type": "echo"}
CLAIM = {"worker": "w", "types": ["echo"], "max": 1, "wait_s": 0}
STREAM = {"Accept": "text/event-stream"}


class Users:
    """Verifies credentials of the form `user:NAME`."""

    def recognizes(self, credential: str) -> bool:
        return credential.startswith("user:")

    async def verify(self, credential: str) -> Principal:
        name = credential.removeprefix("user:")
        if name == "unknown":
            raise InvalidCredential
        return Principal(credential, name, USER_SCOPES)


def as_user(api: Client, name: str) -> dict[str, str]:
    """The headers of a request by the user *name*."""
    api.service.credentials._verifiers = [Users()]
    return {"Authorization": f"Bearer user:{name}"}


# --- the settings


def test_rates_are_read_from_text() -> None:
    settings = Settings(address_rates="submit=100/minute, read = 5 per 10 seconds")
    assert settings.address_rates == {"submit": "100/minute", "read": "5 per 10 seconds"}
    assert settings.principal_rates == {}


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", (100, 60)),
        ("5 per 10 seconds", (5, 10)),
        ("5/2hours", (5, 7200)),
        (" 1 PER Day ", (1, 86_400)),
        ("7 / month", (7, 2_592_000)),
        ("7/year", (7, 31_104_000)),
    ],
)
def test_a_rate_is_a_number_of_requests_in_a_time(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "submit",
        "submit=",
        "login=5/minute",
        "read=0/minute",
        "read=5/eon",
        "read=5/0 minutes",
        "read=\u0665/minute",
        "read=1/second;5/minute",
        "100/minute",
    ],
)
def test_a_wrong_rate_stops_the_start(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(principal_rates=text)


# --- counting


async def test_a_period_begins_with_a_request_and_the_next_one_after_it() -> None:
    clock = FakeClock()
    rate = RequestRate("read-address", 2, 60, clock)
    assert rate.count("a")[2:] == (1, 60.0)
    await clock.advance(20)
    assert rate.count("a")[2:] == (0, 40.0)
    assert rate.count("a")[2:] == (-1, 40.0)
    assert rate.count("b")[2:] == (1, 60.0)
    await clock.advance(40)
    assert rate.count("a")[2:] == (1, 60.0)
    assert rate.count("b")[2:] == (0, 20.0)


async def test_memory_is_bounded_however_many_addresses_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "PERIODS_MAX", 100)
    clock = FakeClock()
    rate = RequestRate("read-address", 1, 60, clock)
    for number in range(1000):
        rate.count(f"address {number}")
    assert len(rate) == 100
    assert rate.count("address 999").remaining == -1
    await clock.advance(60)
    rate.count("another")
    assert len(rate) == 1


def test_addresses_of_one_network_of_ipv6_count_as_one() -> None:
    assert client_network("2001:db8:0:1::5") == client_network("2001:db8:0:1:ffff::9")
    assert client_network("2001:db8:0:1::5") != client_network("2001:db8:0:2::5")
    assert client_network("::ffff:192.0.2.1") == client_network("192.0.2.1") == "192.0.2.1"
    assert client_network("192.0.2.1") != client_network("192.0.2.2")
    assert client_network("fe80::1%eth0") == client_network("fe80::2%eth1")
    assert client_network("") == ""


# --- over HTTP


async def test_a_submission_above_the_rate_is_refused_until_the_period_is_over(
    client: Connect,
) -> None:
    clock = FakeClock()
    api = await client(*HANDLERS, clock=clock, concurrency=0, address_rates={"submit": "2/minute"})
    for left in (1, 0):
        reply = await api("POST", JOBS, ECHO)
        assert reply.status == 202
        assert reply.headers["RateLimit-Policy"] == '"submit-address";q=2;w=60'
        assert reply.headers["RateLimit"] == f'"submit-address";r={left};t=60'
    clock.freeze(20)
    reply = await api("POST", JOBS, ECHO)
    assert reply.code == "rate_limited"
    assert (reply.status, reply.headers["Retry-After"]) == (429, "40")
    assert reply.headers["RateLimit"] == '"submit-address";r=0;t=40'
    assert api.service.log.head == 2
    assert (await api.get(JOBS)).status == 200  # a read
    clock.freeze(40)
    assert (await api("POST", JOBS, ECHO)).status == 202


async def test_reads_are_limited_on_the_fast_path_too(client: Connect) -> None:
    api = await client(
        *HANDLERS,
        clock=FakeClock(),
        concurrency=0,
        address_rates={"read": "4/minute"},
        principal_rates={"read": "5/minute"},
    )
    job = await api.submit("echo")
    replies = [await api.get(job["links"]["self"]) for _ in range(5)]
    assert [each.status for each in replies] == [200, 200, 200, 200, 429]
    assert [each.headers["RateLimit"] for each in replies[:4]] == [
        f'"read-address";r={left};t=60, "read-principal";r={left + 1};t=60' for left in (3, 2, 1, 0)
    ]
    assert replies[4].headers["RateLimit"] == '"read-address";r=0;t=60'


async def test_health_is_never_limited_and_all_other_addresses_are(client: Connect) -> None:
    api = await client(*HANDLERS, clock=FakeClock(), address_rates={"read": "4/minute"})
    for path in ("/healthz", "/readyz", "/healthz"):
        reply = await api.get(path)
        assert (reply.status, reply.headers.get("RateLimit")) == (200, None)
    assert (await api.get("/nothing/here")).status == 404
    assert (await api("PATCH", JOBS)).status == 405
    assert (await api.get("/dashboard.js")).status == 200
    assert (await api("POST", "/v1/types/echo/pause")).status == 200
    for path in ("/nothing/here", JOBS, "/", "/v1/types"):
        assert (await api.get(path)).code == "rate_limited"
    assert (await api("PATCH", JOBS)).code == "rate_limited"


async def test_each_line_of_a_batch_counts(client: Connect) -> None:
    api = await client(
        *HANDLERS, clock=FakeClock(), concurrency=0, address_rates={"submit": "5/minute"}
    )
    reply = await _batch(api, 3)
    assert [each["status"] for each in _lines(reply)] == [202, 202, 202]
    assert reply.headers["RateLimit"] == '"submit-address";r=4;t=60'
    lines = _lines(await _batch(api, 3))
    assert [each["status"] for each in lines] == [202, 202, 429]
    assert lines[2]["error"]["code"] == "rate_limited"
    assert api.service.log.head == 5
    assert (await _batch(api, 3)).code == "rate_limited"


async def test_the_work_of_workers_is_limited_only_by_a_rate_of_its_own(client: Connect) -> None:
    rates = dict.fromkeys(("submit", "read", "stream"), "1/minute")
    api = await client(*HANDLERS, concurrency=0, address_rates=rates, principal_rates=rates)
    for _ in range(3):
        assert (await api("POST", "/v1/work/claim", CLAIM)).status == 200


async def test_the_work_of_workers_has_a_rate_of_its_own(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, address_rates={"work": "1/minute"})
    assert (await api("POST", "/v1/work/claim", CLAIM)).status == 200
    assert (await api("POST", "/v1/work/claim", CLAIM)).code == "rate_limited"


async def test_a_stream_above_the_rate_ends_and_its_client_comes_back_later(
    client: Connect,
) -> None:
    api = await client(
        *HANDLERS, clock=FakeClock(), concurrency=0, address_rates={"stream": "1/minute"}
    )
    job = (await api.submit("echo"))["links"]["self"]
    await api("POST", job + "/cancel")
    first = await api("GET", job, headers=STREAM)  # of a job that has ended: the stream ends
    assert b"event: end" in first.body
    for path in (job, JOBS, "/v1/events"):
        reply = await api("GET", path, headers=STREAM)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream")
        assert reply.headers["RateLimit"] == '"stream-address";r=0;t=60'
        [delay] = re.fullmatch(rb"retry: (\d+)\n\n", reply.body).groups()  # type: ignore[union-attr]
        assert 61_000 <= int(delay) <= 70_000
    assert (await api("HEAD", job, headers=STREAM)).status == 200
    assert (await api.get(job)).status == 200  # a read, and no stream


# --- principals


async def test_a_principal_has_its_own_rate_wherever_it_is(client: Connect) -> None:
    api = await client(
        *HANDLERS,
        clock=FakeClock(),
        concurrency=0,
        auth="required",
        principal_rates={"submit": "2/minute"},
        address_rates={"submit": "5/minute"},
    )
    ann, bob = as_user(api, "ann"), as_user(api, "bob")
    statuses = [(await api("POST", JOBS, ECHO, headers=ann)).status for _ in range(3)]
    assert statuses == [202, 202, 429]
    reply = await api("POST", JOBS, ECHO, headers=bob)
    assert reply.status == 202
    assert reply.headers["RateLimit"] == '"submit-address";r=1;t=60, "submit-principal";r=1;t=60'
    assert (await api("POST", JOBS, ECHO, headers=bob)).status == 202
    assert (await api("POST", JOBS, ECHO, headers=as_user(api, "eve"))).status == 429  # the address


async def test_the_address_is_that_of_the_client_of_a_trusted_proxy(client: Connect) -> None:
    api = await client(
        *HANDLERS,
        clock=FakeClock(),
        concurrency=0,
        address_rates={"submit": "1/minute"},
        trusted_proxies="127.0.0.0/8",
    )
    for number in (1, 2):
        headers = {"X-Forwarded-For": f"192.0.2.{number}"}
        assert (await api("POST", JOBS, ECHO, headers=headers)).status == 202
        assert (await api("POST", JOBS, ECHO, headers=headers)).code == "rate_limited"


async def test_failed_logins_count_for_their_address(client: Connect) -> None:
    api = await client(
        *HANDLERS, clock=FakeClock(), auth="required", address_rates={"read": "2/minute"}
    )
    ann, unknown = as_user(api, "ann"), as_user(api, "unknown")
    assert (await api("GET", JOBS, headers=unknown)).code == "invalid_credential"
    reply = await api.get(JOBS)
    assert reply.code == "unauthenticated"
    assert reply.headers["RateLimit"] == '"read-address";r=0;t=60'
    assert (await api("GET", JOBS, headers=unknown)).code == "rate_limited"
    assert (await api("GET", JOBS, headers=ann)).code == "rate_limited"


@pytest.mark.parametrize("auth", ["off", "optional"])
async def test_without_a_credential_the_rate_of_a_principal_is_that_of_its_address(
    client: Connect, auth: str
) -> None:
    api = await client(
        *HANDLERS, clock=FakeClock(), auth=auth, principal_rates={"submit": "1/minute"}
    )
    assert (await api("POST", JOBS, ECHO)).status == 202
    assert (await api("POST", JOBS, ECHO)).code == "rate_limited"


async def _batch(api: Client, lines: int) -> Any:
    headers = {"Content-Type": "application/x-ndjson"}
    return await api("POST", "/v1/jobs/batch", data=b'{"type":"echo"}\n' * lines, headers=headers)


def _lines(reply: Any) -> list[Any]:

    return [orjson.loads(line) for line in reply.body.splitlines()]
