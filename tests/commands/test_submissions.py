"""A submission from Python is checked like one over HTTP, before anything is appended."""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from enum import IntEnum
from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import BaseModel

from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.timestamps import microseconds
from eventjobs.errors import InvalidInput, NotJSON, UnknownArtifact, UnknownType
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.schedule import schedule
from eventjobs.service import Service
from eventjobs.storable import encode_json
from tests.conftest import Connect, Serve
from tests.support import hostile
from tests.support.errors import error_fields
from tests.support.http_client import Client

SHA256 = "ab" * 32


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


async def charge(context: Context, payload: Any) -> None: ...


class Text(str):
    __slots__ = ()


class Level(IntEnum):
    HIGH = 5


class NoZone(tzinfo):
    def utcoffset(self, at: datetime | None) -> timedelta | None:
        raise RuntimeError("there is none")

    def dst(self, at: datetime | None) -> None:
        return None

    def tzname(self, at: datetime | None) -> None:
        return None


FIRST, LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

#: As over HTTP where there is such a value; where there is none, only here.
WRONG: list[tuple[str, Any]] = [
    ("priority", "high"),
    ("priority", math.nan),
    ("priority", 1.0),
    ("priority", True),
    ("priority", 1001),
    ("priority", 2**70),
    ("run_at_us", 1.5),
    ("run_at_us", True),
    ("run_at_us", -1),
    ("run_at_us", 2**63),
    ("run_at", datetime(2030, 1, 1, 12)),  # noqa: DTZ001 -- which is the point
    ("run_at", date(2030, 1, 1)),
    ("run_at", "2030-01-01T12:00:00Z"),
    ("run_at", 1_893_456_000),
    ("run_at", datetime.min.replace(tzinfo=timezone(timedelta(hours=23)))),
    ("run_at", datetime(9500, 1, 1, tzinfo=UTC)),
    ("run_at", FIRST - timedelta(microseconds=1)),
    ("run_at", LAST + timedelta(microseconds=1)),
    ("run_at", datetime(2030, 1, 1, tzinfo=NoZone())),
    ("tags", "abc"),
    ("tags", {"a", "b"}),
    ("tags", (each for each in "ab")),
    ("tags", [1]),
    ("tags", ["a" * 101]),
    ("tags", ["a\0b"]),
    ("tags", ["\ud800"]),
    ("tags", [""]),
    ("tags", ["a"] * 33),
    ("owner", 5),
    ("owner", ""),
    ("owner", "a" * 201),
    ("owner", "\udfff"),
    ("max_attempts", 0),
    ("max_attempts", "3"),
    ("max_attempts", 1001),
    ("timeout_s", math.inf),
    ("timeout_s", math.nan),
    ("timeout_s", 0),
    ("timeout_s", "1"),
    ("timeout_s", True),
    ("stall_timeout_s", -1),
    ("retry_delay_s", math.nan),
    ("retry_delay_s", b"1"),
    ("ttl_s", math.inf),
    ("ttl_s", 1e300),
    ("queue", "no spaces"),
    ("queue", b"default"),
    ("concurrency_key", ["a"]),
    ("concurrency_key", "a\nb"),
    ("after", "8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11"),
    ("after", [5]),
    ("after", ["x"]),
    ("after_failure", "go on"),
    ("parent", UUID("8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11")),
    ("artifacts", {"a.txt": SHA256}),
    ("artifacts", [("a.txt", SHA256, 1)]),
    ("artifacts", [asdict(Artifact("a.txt", SHA256, 1))]),
    ("artifacts", [Artifact("../a", SHA256, 1)]),
    ("artifacts", [Artifact("a", "x", 1)]),
    ("artifacts", [Artifact("a", SHA256, True)]),
    ("artifacts", [Artifact("a", SHA256, 1, "none")]),
    ("artifacts", [Artifact("a", SHA256, 1), Artifact("a", SHA256, 1)]),
    ("surprise", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
async def test_a_submission_that_does_not_fit_names_the_field(
    service: Service, name: str, value: Any
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await service.submit("echo", 1, **{name: value})
    assert {each.split(".")[0] for each in error_fields(refused.value)} == {name}
    if name in JobSpec.__dataclass_fields__ and name != "max_attempts":  # there 0 is the handler's
        with pytest.raises(InvalidInput):
            await service.submissions.submit(JobSpec("echo", 1, **{name: value}), actor="python")
    with pytest.raises(ValueError, match="schedule 'hourly'"):
        schedule("hourly", "0 * * * *", "echo", 1, **{name: value})


OF_BOTH = sorted({name for name, _ in WRONG} - {"owner", "run_at", "run_at_us", "artifacts"})


@pytest.mark.parametrize("name", OF_BOTH)
async def test_http_refuses_the_same_by_the_same_name(client: Connect, name: str) -> None:
    api: Client = await client(echo)
    for value in (value for each, value in WRONG if each == name and is_json(value)):
        reply = await api("POST", "/v1/jobs", {"type": "echo", name: value})
        assert reply.status == 422, value
        assert {each["field"].split(".")[0] for each in reply.json["errors"]} == {name}


def is_json(value: Any) -> bool:
    try:
        encode_json(value)
    except NotJSON:
        return False
    return True


@pytest.mark.parametrize("at", [FIRST, LAST])
async def test_the_first_and_the_last_time_are_accepted(serve: Serve, at: datetime) -> None:
    service = await serve(echo)
    job = await service.submit("echo", run_at=at)
    assert job.spec.run_at_us == microseconds(at)


async def test_a_value_that_cannot_be_read_is_refused(service: Service) -> None:
    """Its own methods end the program, or never end."""
    for name in ("tags", "run_at", "priority", "owner", "artifacts", "after"):
        things: list[Any] = [hostile.Reads(), hostile.List([1]), hostile.OddNumber()]
        for each in things:
            with pytest.raises(InvalidInput):
                await service.submit("echo", **{name: each})


async def test_every_field_that_is_wrong_is_named(service: Service) -> None:
    with pytest.raises(InvalidInput) as refused:
        await service.submit("echo", priority="high", timeout_s=math.nan, tags=["a", 1])
    assert error_fields(refused.value) == {"priority", "timeout_s", "tags.1"}
    assert "priority: " in str(refused.value)


@pytest.mark.parametrize("type", [5, None, ["echo"], b"echo", object()])
async def test_a_type_is_the_name_of_a_handler(service: Service, type: Any) -> None:
    with pytest.raises(UnknownType) as refused:
        await service.submit(type)
    assert error_fields(refused.value) == {"type"}


@pytest.mark.parametrize("spec", [None, {"type": "echo"}, JobSpec(5), JobSpec("echo", owner=5)])  # type: ignore[arg-type]
async def test_a_specification_made_by_hand_is_checked_as_well(service: Service, spec: Any) -> None:
    with pytest.raises(InvalidInput):
        await service.submissions.submit(spec, actor="python")


async def test_sensitive_fields_are_those_that_the_handler_declares(client: Connect) -> None:
    api = await client(handler("charge", sensitive=("card",))(charge), echo)
    reply = await api("POST", "/v1/jobs", {"type": "echo", "sensitive": ["payload"]})
    assert reply.code == "invalid_input"
    submit = api.service.submissions.submit
    for type, given, kept in (("charge", (), ("card",)), ("echo", ("card",), ())):
        spec = JobSpec(type, {"card": 1}, sensitive=given)
        assert (await submit(spec, actor="python")).job.spec.sensitive == kept
    by_http = await api.submit("charge", {"card": 1})
    job = await api.service.jobs.current(by_http["job_id"])
    assert job is not None
    assert job.spec.sensitive == ("card",)
    again = await submit(job.spec, actor="python", job_id=job.job_id)
    assert not again.changed


async def test_who_does_it_and_the_id_are_checked(service: Service) -> None:
    actors: list[Any] = [5, "a\0b", "\ud800", "a" * 1001, None]
    for actor in actors:
        with pytest.raises(InvalidInput):
            await service.submit("echo", actor=actor)
    ids: list[Any] = [5, "x", b"8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11", ["a"], UUID(int=1)]
    for job_id in ids:
        with pytest.raises(InvalidInput):
            await service.submit("echo", job_id=job_id)
        with pytest.raises(InvalidInput):
            await service.wait(job_id)


async def test_a_file_has_to_be_here(service: Service) -> None:
    with pytest.raises(UnknownArtifact):
        await service.submit("echo", artifacts=[Artifact("a.txt", SHA256, 1)])
    with pytest.raises(InvalidInput, match="a list of Artifacts"):
        await service.submit("echo", artifacts=[asdict(Artifact("a.txt", SHA256, 1))])
    wrong: list[Any] = [{"../a": SHA256}, {"a": "../../etc/passwd"}, {5: SHA256}, [SHA256], None]
    for given in wrong:
        with pytest.raises(InvalidInput):
            await service.submissions.artifacts_of(given)


class Order(BaseModel):
    item: Any


@dataclass
class Point:
    x: Any


@pytest.mark.parametrize(
    "payload",
    [
        math.nan,
        [1, {"a": -math.inf}],
        2**64,
        {1: "a"},
        "\ud800",
        {"\udfff": 1},
        {1, 2},
        (each for each in "ab"),
        Order(item=math.nan),
        {"a": [Order(item=object())]},
        Point(math.nan),
        object(),
        b"bytes",
        orjson.Fragment(b"{"),
        {"a": [orjson.Fragment(b"}")]},
    ],
)
async def test_a_payload_is_json(service: Service, payload: Any) -> None:
    with pytest.raises(NotJSON) as refused:
        await service.submit("echo", payload)
    assert error_fields(refused.value) == {"payload"}


async def test_no_text_is_taken_for_json(service: Service) -> None:
    """It would be stored as it is, and the log could not be read any more."""
    with pytest.raises(InvalidInput):
        await service.submissions.submit(JobSpec("echo", orjson.Fragment(b"{")), actor="python")


async def test_a_handler_cannot_return_such_a_text(serve: Serve) -> None:
    @handler("cheats", max_attempts=1)
    async def cheats(context: Context, payload: Any) -> Any:
        return [orjson.Fragment(b"}")]

    service = await serve(cheats)
    job = await service.wait((await service.submit("cheats")).job_id)
    assert job.error is not None
    assert job.error["code"] == "result_not_json"


async def test_what_is_right_is_kept_as_exact_types(serve: Serve) -> None:
    service = await serve(echo)
    run_at = datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2)))
    job = await service.submit(
        Text("echo"),
        {"order": Order(item=(1,)), "at": Point(Level.HIGH)},
        tags=[Text("a"), "b"],
        priority=Level.HIGH,
        timeout_s=5,
        run_at=run_at,
        owner=None,
    )
    assert job.spec == JobSpec(
        "echo",
        {"order": {"item": [1]}, "at": {"x": 5}},
        ("a", "b"),
        priority=5,
        run_at_us=1_709_200_800_000_000,
        max_attempts=3,
        timeout_s=5.0,
    )
    exact = [type(job.spec.type), type(job.spec.tags[0]), type(job.spec.priority)]
    assert exact == [str, str, int]
    assert (await service.wait(job.job_id)).result == job.spec.payload
