"""API keys are created, verified, listed and revoked, and their text is stored nowhere."""

import asyncio
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from pathlib import Path
from typing import Any

import pytest

from eventjobs.auth.api_keys import APIKey, stream_of
from eventjobs.auth.principals import USER_SCOPES
from eventjobs.domain.events import KeyCreated, KeyRevoked
from eventjobs.domain.ids import new_id
from eventjobs.errors import (
    DiskFull,
    InvalidCredential,
    InvalidInput,
    JobExists,
    JobNotFound,
    KeyNotFound,
    LimitReached,
    OutcomeUnknown,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from eventjobs.storage.data_directory import LAST_USES
from tests.conftest import Serve
from tests.support.clock import FakeClock
from tests.support.keys import make_key
from tests.support.log_lines import capture_logs
from tests.support.waiting import time_passing


@handler("noop")
async def noop(context: Context, payload: Any) -> None:
    pass


def id_in(text: str) -> str:
    key = APIKey.parse(text)
    assert key is not None
    return key.key_id


async def refusal(service: Service, credential: str) -> str:
    with pytest.raises(InvalidCredential) as refused:
        await service.credentials.verify(credential)
    return refused.value.message


async def test_a_key_is_verified_as_what_it_was_created_for(serve: Serve) -> None:
    service = await serve()
    text = await make_key(service, ["jobs:read", "worker:csv"], owner="ann")
    principal = await service.credentials.verify(text)
    assert principal.name == f"key:{id_in(text)}"
    assert principal.owner == "ann"
    assert principal.scopes == {"jobs:read", "worker:csv"}
    assert principal.credentials == (principal.name,)
    assert principal.expires_us is None


async def test_by_default_a_key_is_a_user_of_its_name(serve: Serve) -> None:
    service = await serve()
    info, text = await service.api_keys.create("ann", actor="test")
    assert (info.name, info.owner, info.scopes) == ("ann", "ann", tuple(sorted(USER_SCOPES)))
    principal = await service.credentials.verify(text)
    assert (principal.owner, principal.scopes) == ("ann", USER_SCOPES)


async def test_a_wrong_secret_an_unknown_id_and_a_jobs_id_are_refused_alike(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(noop)
    text = await make_key(service)
    job = await service.submit("noop")
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    monkeypatch.setattr("eventjobs.auth.api_keys.hmac.compare_digest", compare)
    stream = stream_of(id_in(text))
    assert stream is not None
    wrong = [APIKey.create(each).text for each in (stream, new_id(1), job.job_id)]
    wrong.append(APIKey("z" * 22, "0" * 43).text)
    assert {await refusal(service, each) for each in wrong} == {InvalidCredential.__doc__}
    assert compared == [(64, 64)] * len(wrong), "an unknown id takes as long as a wrong secret"


async def test_a_wrong_checksum_is_refused_without_a_read_of_the_log(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve()
    text = await make_key(service)

    async def read_job(*arguments: Any) -> Any:
        raise AssertionError("the log was read")

    monkeypatch.setattr(service.log, "read_job", read_job)
    assert "mistyped" in await refusal(service, text[:-1] + ("0" if text[-1] != "0" else "1"))


async def test_a_revoked_key_is_refused_at_once_and_its_streams_end(serve: Serve) -> None:
    service = await serve()
    text = await make_key(service)
    ended: list[str] = []
    service.credentials.on_revoked(ended.append)
    principal = await service.credentials.verify(text)
    session, _ = service.sessions.begin(principal)
    await service.credentials.verify(session)
    await service.api_keys.revoke(id_in(text), "lost", actor="ann")
    assert service.credentials.get_cached(text) is None
    assert "revoked" in await refusal(service, text)
    with pytest.raises(InvalidCredential, match="revoked"):
        await service.credentials.verify(session)
    assert ended == [principal.name]
    head = service.log.head
    await service.api_keys.revoke(id_in(text), actor="ann")
    assert service.log.head == head, "harmless to repeat"
    [created, revoked] = await service.log.read(head - 2)
    assert isinstance(created.event, KeyCreated)
    assert (revoked.event, revoked.actor) == (KeyRevoked("lost"), "ann")


async def test_an_expired_key_is_refused_also_when_it_was_verified_before(serve: Serve) -> None:
    clock = FakeClock()
    service = await serve(clock=clock)
    expires_at = datetime.fromtimestamp(clock.now_us() / 1e6, UTC) + timedelta(minutes=1)
    text = await make_key(service, expires_at=expires_at)
    await service.credentials.verify(text)
    await clock.advance(61.0)
    assert service.credentials.get_cached(text) is None
    assert "expired" in await refusal(service, text)


async def test_a_revocation_whose_outcome_is_unknown_counts_if_it_happened(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve()
    text = await make_key(service)
    await service.credentials.verify(text)
    append = service.log.append

    async def append_unknown(*arguments: Any, **more: Any) -> Any:
        await append(*arguments, **more)
        raise OutcomeUnknown

    monkeypatch.setattr(service.log, "append", append_unknown)
    with pytest.raises(OutcomeUnknown):
        await service.api_keys.revoke(id_in(text), actor="ann")
    assert service.credentials.get_cached(text) is None
    assert "revoked" in await refusal(service, text)


@pytest.mark.parametrize("key_id", ["", "x", "z" * 22, "0" * 22, 5, None])
async def test_what_is_no_key_cannot_be_revoked(serve: Serve, key_id: Any) -> None:
    service = await serve(noop)
    with pytest.raises(KeyNotFound):
        await service.api_keys.revoke(key_id, actor="ann")
    assert service.log.head == 0


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 5}, "name"),
        ({"owner": ""}, "owner"),
        ({"owner": "anonymous"}, "owner"),
        ({"name": "anonymous"}, "owner"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["jobs:everything"]}, "scopes.0"),
        ({"scopes": ["admin", "worker:"]}, "scopes.1"),
        ({"scopes": ["worker:a\x00"]}, "scopes.0"),
        ({"scopes": ["admin"] * 101}, "scopes"),
        ({"scopes": "admin"}, "scopes"),
        ({"expires_at": LONG_AGO}, "expires_at"),
        ({"expires_at": datetime(2030, 1, 1)}, "expires_at"),  # noqa: DTZ001
    ],
)
async def test_a_key_that_cannot_be_is_refused(
    serve: Serve, given: dict[str, Any], field: str
) -> None:
    service = await serve()
    with pytest.raises(InvalidInput) as refused:
        await service.api_keys.create(**{"name": "ann", **given}, actor="test")
    assert [each["field"] for each in refused.value.errors] == [field]
    assert service.log.head == 0


async def test_there_are_no_more_keys_than_there_may_be(serve: Serve) -> None:
    service = await serve(api_keys_max=3)
    creations = (make_key(service) for _ in range(8))
    outcomes = await asyncio.gather(*creations, return_exceptions=True)
    assert sum(isinstance(each, LimitReached) for each in outcomes) == 5
    [first, *_] = await service.api_keys.all()
    await service.api_keys.revoke(first.key_id, actor="test")
    await make_key(service)


async def test_no_job_can_have_the_id_of_a_key(serve: Serve) -> None:
    service = await serve(noop)
    stream = stream_of(id_in(await make_key(service)))
    assert stream is not None
    with pytest.raises(JobExists, match="API key"):
        await service.submit("noop", job_id=stream)
    with pytest.raises(JobNotFound):
        await service.wait(stream)


# --- what is stored


async def test_keys_outlive_a_restart_and_their_list_a_rebuild(serve: Serve) -> None:
    service = await serve()
    kept, revoked = await make_key(service, ["admin"]), await make_key(service)
    await service.api_keys.revoke(id_in(revoked), actor="test")
    [listed] = await service.api_keys.all()
    await service.views.rebuild()
    assert await service.api_keys.all() == [listed]
    await service.close()
    again = await serve()
    assert await again.api_keys.all() == [listed]
    assert (await again.credentials.verify(kept)).scopes == {"admin"}
    assert "revoked" in await refusal(again, revoked)


async def test_the_text_of_a_key_is_nowhere_in_the_data_directory(serve: Serve) -> None:
    service = await serve(auth="required")
    with capture_logs() as lines:
        texts = [await make_key(service), await make_key(service)]
        for each in texts:
            await service.credentials.verify(each)
            await refusal(service, each[:-1] + "_")
        await service.api_keys.revoke(id_in(texts[1]), "it leaked", actor="test")
        events = b"".join(each.data for each in await service.log.read(0))
        await service.close()
    files = {path: path.read_bytes() for path in files_in(service.settings.data)}
    assert {"log.db", "views.db", LAST_USES} <= {path.name for path in files}
    digest = APIKey.parse(texts[0]).digest.encode()  # type: ignore[union-attr]
    assert any(digest in content for content in files.values()), "the files are searched"
    for text in texts:
        secret = text[len("ej_key_") + 23 :][:43].encode()
        assert not [path for path, content in files.items() if secret in content]
        assert secret not in events
        assert secret not in repr(lines).encode()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_key_whose_creation_was_not_answered_is_listed_and_can_be_revoked(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve()
    append = service.log.append

    async def append_and_die(*arguments: Any, **more: Any) -> Any:
        await append(*arguments, **more)
        raise asyncio.CancelledError

    monkeypatch.setattr(service.log, "append", append_and_die)
    with pytest.raises(asyncio.CancelledError):
        await make_key(service)
    await service.close()
    again = await serve()
    [lost] = await again.api_keys.all()
    await again.api_keys.revoke(lost.key_id, actor="test")
    assert await again.api_keys.all() == []


async def test_a_key_that_the_log_did_not_take_is_not_there(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve()

    async def append(*arguments: Any, **more: Any) -> Any:
        raise DiskFull

    with monkeypatch.context() as patch:
        patch.setattr(service.log, "append", append)
        with pytest.raises(DiskFull):
            await make_key(service)
    assert await service.api_keys.all() == []


# --- last uses


async def test_the_last_use_is_listed_at_once_and_written_once_a_minute(serve: Serve) -> None:
    clock = FakeClock()
    service = await serve(clock=clock, auth="required")
    text = await make_key(service)
    file = service.settings.data / LAST_USES
    assert [each.last_used_us for each in await service.api_keys.all()] == [None]
    await service.credentials.verify(text)
    await clock.advance(1.0)
    used_us = clock.now_us()
    assert service.credentials.get_cached(text) is not None
    assert [each.last_used_us for each in await service.api_keys.all()] == [used_us]
    assert not file.exists()
    await clock.advance(60.0)
    written = file.read_bytes()
    assert str(used_us).encode() in written
    await clock.advance(1.0)
    service.credentials.get_cached(text)
    assert file.read_bytes() == written
    await time_passing(clock, service.close())
    assert file.read_bytes() != written, "also at the end"


async def test_last_uses_outlive_a_restart_and_end_with_the_key(serve: Serve) -> None:
    service = await serve()
    text, other = await make_key(service), await make_key(service)
    for each in (text, other):
        await service.credentials.verify(each)
    listed = await service.api_keys.all()
    assert all(each.last_used_us for each in listed)
    await service.close()
    again = await serve()
    assert await again.api_keys.all() == listed
    await again.credentials.verify(other)
    await again.api_keys.revoke(id_in(text), actor="test")
    await again.close()
    assert id_in(text) not in (again.settings.data / LAST_USES).read_text()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"x": "y", "z": null}', None])
async def test_a_damaged_file_of_last_uses_loses_only_these(
    serve: Serve, content: bytes | None
) -> None:
    service = await serve()
    text = await make_key(service)
    await service.credentials.verify(text)
    await service.close()
    file = service.settings.data / LAST_USES
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    again = await serve()
    assert [each.last_used_us for each in await again.api_keys.all()] == [None]
    await again.credentials.verify(text)
    await again.close()
    assert id_in(text) in file.read_text()


async def test_last_uses_that_cannot_be_written_stay_in_memory(serve: Serve) -> None:
    service = await serve()
    text = await make_key(service)
    await service.credentials.verify(text)
    file = service.settings.data / LAST_USES
    file.mkdir()
    (file / "in the way").touch()
    with capture_logs() as lines:
        await service.api_keys.write_uses()
    assert lines[-1]["event"] == "last uses of API keys not stored"
    (file / "in the way").unlink()
    file.rmdir()
    await service.api_keys.write_uses()
    assert id_in(text) in file.read_text()
