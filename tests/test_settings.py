"""Settings: which variable is in effect, and what a time limit does."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from eventjobs.cli.setting_values import WrongSettings, read_settings
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.settings import Settings, variable_in_effect
from tests.conftest import Connect, Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.waiting import job_when


@handler("forever")
async def forever(ctx: Context, payload: Any) -> None:
    await asyncio.Event().wait()


@handler("own-limit", timeout_s=7)
async def own_limit(ctx: Context, payload: Any) -> None:
    pass


def test_a_setting_has_the_name_it_has_elsewhere_and_ours_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().timeout_s is None
    monkeypatch.setenv("JOB_TIMEOUT_SECONDS", "600")
    assert Settings().timeout_s == 600
    assert variable_in_effect(Settings, "timeout_s") == "JOB_TIMEOUT_SECONDS"
    monkeypatch.setenv("EVENTJOBS_TIMEOUT_S", "30")
    assert Settings().timeout_s == 30
    assert variable_in_effect(Settings, "timeout_s") == "EVENTJOBS_TIMEOUT_S"
    assert Settings(timeout_s=1).timeout_s == 1


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_TIMEOUT_SECONDS", "")
    monkeypatch.setenv("EVENTJOBS_PORT", "")
    assert (Settings().timeout_s, Settings().port) == (None, 8080)
    assert variable_in_effect(Settings, "port") is None


async def test_the_limit_of_jobs_that_have_none_of_their_own(serve: Serve) -> None:
    service = await serve(forever, own_limit, concurrency=0, timeout_s=600)
    jobs = [
        await service.submit("forever"),
        await service.submit("own-limit"),
        await service.submit("forever", timeout_s=3.0),
    ]
    assert [job.spec.timeout_s for job in jobs] == [600, 7, 3]


async def test_what_is_not_set_does_not_limit(serve: Serve) -> None:
    service = await serve(forever, concurrency=0)
    assert (await service.submit("forever")).spec.timeout_s is None


async def test_a_job_ends_at_the_limit_of_the_settings(client: Connect, clock: FakeClock) -> None:
    asked = await client(forever, clock=clock, timeout_s=10)
    job_id = (await asked.submit("forever", max_attempts=1))["job_id"]
    await job_when(asked.service, job_id, lambda job: job.status == "running")
    await clock.advance(10)
    job = await asked.service.wait(job_id)
    assert job.finished_us is not None
    assert job.started_us is not None
    assert job.finished_us - job.started_us == 10 * SECOND
    assert (job.status, job.error and job.error["code"]) == ("failed", "timeout")


def test_networks_and_host_names_are_lists_with_commas() -> None:
    settings = Settings(
        trusted_proxies="10.0.0.0/8, ::1,", allowed_hosts="Jobs.example.com, .b.dev,*"
    )
    assert [str(each) for each in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert settings.allowed_hosts == ("jobs.example.com", ".b.dev", "*")


def test_an_origin_is_as_browsers_send_it() -> None:
    origins = "HTTPS://App.example.com:443,http://[::1]:3000, app://x,http://a.test:80"
    assert Settings(cors_origins=origins).cors_origins == (
        "https://app.example.com",
        "http://[::1]:3000",
        "app://x",
        "http://a.test",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"cors_origins": "*"},
        {"cors_origins": "null"},
        {"cors_origins": "app.example.com"},
        {"cors_origins": "https://*.example.com"},
        {"cors_origins": "https://app.example.com/"},
        {"cors_origins": "https://user@app.example.com"},
        {"trusted_proxies": "10.0.0.1/8"},
        {"trusted_proxies": "nginx"},
        {"trusted_proxies": "10.0.0.1:80"},
        {"trusted_proxies": "*"},
        {"allowed_hosts": "jobs.example.com:8080"},
        {"allowed_hosts": "https://jobs.example.com"},
        {"allowed_hosts": "*.example.com"},
        {"allowed_hosts": "a b"},
    ],
)
def test_a_wrong_network_or_host_name_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(WrongSettings) as error:
        read_settings(Settings, wrong)
    [(name, value)] = wrong.items()
    assert str(error.value).startswith(f"{name}: ")
    assert repr(value) in str(error.value)


SECRET = "s" * 32
OIDC: dict[str, Any] = {
    "jwks_url": "https://issuer.example/keys",
    "jwt_issuer": "i",
    "jwt_audience": "a",
}


def errors_of(**settings: Any) -> dict[str, str]:
    """By setting: what is wrong with it."""
    with pytest.raises(ValidationError) as error:
        Settings(**settings)
    assert "input_value" not in str(error.value)  # it may be secret
    return {str(each["loc"][0]): each["msg"] for each in error.value.errors()}


def test_tokens_are_verified_with_a_secret_or_with_fetched_keys() -> None:
    assert Settings(jwt_secret=SECRET).jwt_secret is not None
    assert Settings(**OIDC).jwt_issuer == "i"
    assert "either" in errors_of(**OIDC, jwt_secret=SECRET)["jwks_url"]


def test_a_secret_of_tokens_is_long_and_not_shown() -> None:
    assert "at least 32 bytes" in errors_of(jwt_secret=SECRET[1:])["jwt_secret"]
    assert SECRET not in repr(Settings(jwt_secret=SECRET))
    assert Settings(jwt_secret="\u20ac" * 11).jwt_secret is not None  # 33 bytes
    assert errors_of(jwt_secret="\ud800" * 32)


def test_fetched_keys_need_an_issuer_and_an_audience() -> None:
    assert errors_of(jwks_url=OIDC["jwks_url"]).keys() == {"jwt_issuer", "jwt_audience"}


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost@issuer.example/keys",
        "https://me:secret@issuer.example/keys",
        "https:///keys",
        "ftp://issuer.example/keys",
        "file:///etc/passwd",
        "/keys",
        "https://issuer.example/ keys",
    ],
)
def test_keys_are_fetched_over_tls(url: str) -> None:
    assert errors_of(**{**OIDC, "jwks_url": url}).keys() == {"jwks_url"}


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example:8443/realms/a/certs?v=1",
        "http://127.0.0.1:9/keys",
        "http://localhost/keys",
        "http://[::1]:9/keys",
    ],
)
def test_on_this_machine_keys_may_be_fetched_without_tls(url: str) -> None:
    assert Settings(**{**OIDC, "jwks_url": url}).jwks_url == url
