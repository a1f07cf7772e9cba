"""The token of a client: sent with every request, and to no other address."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventjobs.auth.api_keys import APIKey
from eventjobs.client import ApiError, Client, WrongAddress
from eventjobs.errors import InvalidInput
from tests.conftest import Serve
from tests.support.foreign_servers import Reply, answering
from tests.support.http_client import Client as Server
from tests.support.http_client import connect_client
from tests.support.http_jobs import echo
from tests.support.keys import ADMIN, make_key


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Server]:
    """A service that requires a credential."""
    async with connect_client(await serve(echo, auth="required")) as api:
        yield api


@pytest.fixture
async def admin(api: Server) -> AsyncIterator[Client]:
    async with Client(api.listening.url, token=await make_key(api.service, ADMIN)) as client:
        yield client


async def test_every_request_has_the_token(admin: Client, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("text")
    job = await admin.submit("echo", 1, artifacts={"in.txt": file})
    assert (await admin.wait(job["job_id"]))["status"] == "completed"
    assert [each["type"] async for each in admin.events(job["job_id"])][-1] == "JobCompleted"
    assert [each["status"] async for each in admin.watch(job["job_id"])] == ["completed"]
    assert await admin.download(job["job_id"], "in.txt", tmp_path / "out.txt") == 4
    assert [each["job_id"] async for each in admin.list()] == [job["job_id"]]
    assert await admin.types()


@pytest.mark.parametrize(
    ("token", "code"), [(None, "unauthenticated"), (APIKey("0" * 22, "0" * 43).text, "invalid")]
)
async def test_a_refusal_is_an_api_error(api: Server, token: str | None, code: str) -> None:
    async with Client(api.listening.url, token=token) as client:
        with pytest.raises(ApiError) as refused:
            await client.counts()
        assert refused.value.status == 401
        assert refused.value.code.startswith(code)
        with pytest.raises(ApiError) as refused:
            async for _ in client.watch():
                pass
        assert refused.value.status == 401


@pytest.mark.parametrize("token", ["", "a b", "a\n", "a\r\nX: y", "\u00e9", "a\x00", 5])
def test_a_token_that_no_header_can_have_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        Client("http://127.0.0.1:1", token=token)
    assert "a\n" not in refused.value.message
    assert "X: y" not in refused.value.message


def test_a_token_and_a_user_in_the_address_are_refused() -> None:
    with pytest.raises(InvalidInput, match="give one of them"):
        Client("http://ann:secret@127.0.0.1:1", token="t")


@contextmanager
def recording() -> Iterator[tuple[str, list[str | None]]]:
    """The address of a server, and the Authorization of each of its requests."""
    seen: list[str | None] = []
    with answering(Reply(200, "application/json", b"{}"), seen=seen) as url:
        yield url, seen


async def test_no_redirect_is_followed_with_the_token() -> None:
    with recording() as (other, seen):
        redirect = Reply(307, headers={"Location": f"{other}/v1/counts"})
        with answering(redirect) as url:
            async with Client(url, token="t") as client:
                for call in (client.counts(), client.upload(b"x"), client.submit("echo")):
                    with pytest.raises(WrongAddress):
                        await call
                with pytest.raises(WrongAddress):
                    async for _ in client.watch():
                        pass
    assert seen == []


async def test_the_token_is_a_bearer_token() -> None:
    with recording() as (url, seen):
        async with Client(url, token="t") as client:
            await client.get("x")
        async with Client(url) as client:
            await client.get("x")
    assert seen == ["Bearer t", None]
