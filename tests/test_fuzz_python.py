"""Arbitrary values are passed to the Python API. Each call ends in a documented error or in a job.

After all of them the service is ready, every attempt has ended, and the data directory opens again.
"""

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from eventjobs.client import Client
from eventjobs.domain.events import WebhookAdded
from eventjobs.domain.job import Job
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.errors import EventjobsError, JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import external, handler, remote
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.schedule import schedule
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.storable import storable_text
from tests.support import hostile
from tests.support.views import quick_folder

KNOWN = "8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11"
SHA256 = "ab" * 32


#: To shrink what failed takes minutes here, and to explain it traces every line.
WIDE = settings(suppress_health_check=[*HealthCheck], deadline=None, phases=[Phase.generate])


# --- values of every type, most of them wrong wherever they are given


class Sent(Exception):
    """The client would have sent a request."""


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


class Level(IntEnum):
    LOW = 1


class Odd(Enum):
    NAN = math.nan


class Model(BaseModel):
    value: Any


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Record:
    value: Any


NO_NUMBER: Any = math.nan
WRONG = [Artifact("../a", SHA256, NO_NUMBER), JobSpec("echo", priority=NO_NUMBER)]
odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(math.nan, math.inf, -math.inf, 0.0, -1.5, 1e308, Number(1)),
        *(0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, Level.LOW, Odd.NAN),
        *(True, False, None, ..., NotImplemented),
        *("", "a", "a\0b", "\ud800", "\udfff", "a\nb", "é" * 70_000, Text("echo"), "NaN", "1"),
        *(b"", b"\xff", bytearray(b"a"), memoryview(b"a")),
        datetime(2030, 1, 1),  # noqa: DTZ001 -- which is the point
        *(
            datetime.min.replace(tzinfo=UTC),
            datetime.max.replace(tzinfo=timezone(timedelta(1) / 2)),
        ),
        *(date(2030, 1, 1), timedelta(1), Decimal("NaN"), Fraction(1, 3), UUID(int=5), 1j),
        *(Path("/nonexistent"), range(3), int, len, Model, orjson.Fragment(b"{")),
        *(Artifact("a", SHA256, 1), JobSpec("echo"), *WRONG),
    ]
)


class Made(NamedTuple):
    """What is made by *make* alone: hypothesis could not print what it has drawn."""

    name: str


MADE: dict[str, Callable[[], Any]] = {
    "unreadable": hostile.Reads,
    "odd number": hostile.OddNumber,
    "odd text": lambda: hostile.OddText("a"),
    "odd dict": lambda: hostile.Dict(a=1),
    "odd list": lambda: hostile.List([1]),
    "wide": lambda: hostile.double(9),
    "cycle": hostile.cycle,
    "generator": lambda: iter("ab"),
}
MADE_ERRORS = {name: each for name, each in hostile.ERRORS.items() if "interrupt" not in name}


def make(drawn: Any) -> Any:
    """The value that *drawn* stands for."""
    kind = type(drawn)
    if kind is Made:
        return MADE[drawn.name]()
    if kind in (list, set):
        return [make(each) for each in drawn]
    if kind is tuple:
        return tuple(make(each) for each in drawn)
    if kind is dict:
        return {name: make(each) for name, each in drawn.items()}
    if kind in (Model, Record):
        return kind(value=make(drawn.value))
    if kind is Pair:
        return Pair(make(drawn.first), make(drawn.second))
    return drawn


leaves = (
    odd
    | st.sampled_from([*MADE]).map(Made)
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
)
anything: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2),
        st.builds(Model, value=inner),
        st.builds(Record, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=4,
)


def either(*fitting: Any) -> st.SearchStrategy[Any]:
    """Something that fits, or anything."""
    return st.sampled_from(fitting) | anything


def some(**named: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these arguments."""
    return st.fixed_dictionaries({}, optional=named)


SUBMISSION = {
    "tags": either(["a"], ("b",)),
    "owner": either("ann"),
    "priority": either(5, -1000),
    "run_at": either(datetime(2024, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)),
    "run_at_us": either(0, 10**15),
    "max_attempts": either(1, 3),
    "timeout_s": either(1, 60.0),
    "stall_timeout_s": either(60),
    "retry_delay_s": either(0, 0.5),
    "artifacts": either([], [Artifact("a", SHA256, 1)]),
    "queue": either("slow"),
    "concurrency_key": either("key"),
    "ttl_s": either(0, 60),
    "after": either([], [KNOWN]),
    "after_failure": either("run", "cancel"),
    "parent": either(KNOWN),
    "surprise": anything,
}
types = either("echo", "acts", "in a thread")
ids = either(KNOWN, "00000000-0000-4000-8000-00000000000f")
#: Nothing is ever sent: this address is refused.
urls = st.just("http://127.0.0.1/") | anything.filter(lambda each: not isinstance(each, str))
spec_fields = some(
    **{name: each for name, each in SUBMISSION.items() if name in JobSpec.__dataclass_fields__}
)

Call = Callable[..., Awaitable[Any]]


# --- the methods of a service


def spec_of(fields: Any) -> JobSpec:
    return JobSpec(**{"type": "echo", **fields})


def surface(service: Service) -> dict[str, Call]:
    async def at_once(function: Callable[..., Any], *args: Any, **named: Any) -> None:
        function(*args, **named)

    return {
        "submit": service.submit,
        "submit a spec": lambda spec, **named: service.submissions.submit(spec_of(spec), **named),
        "wait": lambda job_id: asyncio.wait_for(service.wait(job_id), 0.01),
        "artifacts_of": service.submissions.artifacts_of,
        "complete": lambda spec: at_once(service.submissions.defaults.complete, spec_of(spec)),
        "max_attempts": lambda type: at_once(service.submissions.defaults.max_attempts, type),
        "cancel": service.jobs.cancel,
        "retry": service.jobs.retry,
        "expire": service.jobs.expire,
        "pause": service.pauses.pause,
        "resume": service.pauses.resume,
        "add": lambda wanted, actor: service.webhooks.add(WebhookAdded(**wanted), actor=actor),
        "get": service.webhooks.get,
        "remove": service.webhooks.remove,
        "redeliver": service.deliveries.redeliver,
        "create a key": service.api_keys.create,
        "revoke a key": service.api_keys.revoke,
    }


actors = either("python", "ann")
reasons = either(None, "why")
names = either("other")
SERVICE: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "submit": st.builds(
        lambda needed, more: {**needed, **more},
        st.fixed_dictionaries({"type": types, "payload": anything}),
        some(job_id=ids, actor=actors, **SUBMISSION),
    ),
    "submit a spec": st.fixed_dictionaries({"spec": spec_fields, "actor": actors, "job_id": ids}),
    "wait": st.fixed_dictionaries({"job_id": ids}),
    "artifacts_of": st.fixed_dictionaries({"files": either({}, {"a": SHA256})}),
    "complete": st.fixed_dictionaries({"spec": spec_fields}),
    "max_attempts": st.fixed_dictionaries({"type": types}),
    "cancel": st.fixed_dictionaries({"job_id": ids, "reason": reasons, "actor": actors}),
    "retry": st.fixed_dictionaries(
        {"job_id": ids, "reason": reasons, "actor": actors},
        optional={"from_step": either("one"), "restart": either(True)},
    ),
    "expire": st.fixed_dictionaries({"job_id": ids, "reason": reasons, "actor": actors}),
    "pause": st.fixed_dictionaries(
        {"kind": either("type", "queue"), "name": names, "reason": reasons, "actor": actors}
    ),
    "resume": st.fixed_dictionaries(
        {"kind": either("type", "queue", "schedule"), "name": names, "actor": actors}
    ),
    "add": st.fixed_dictionaries(
        {
            "wanted": some(
                events=either(()), types=either(("echo",)), owner=either(None, "ann"), url=urls
            ),
            "actor": actors,
        }
    ),
    "get": st.fixed_dictionaries({"webhook_id": ids}),
    "remove": st.fixed_dictionaries({"webhook_id": ids, "reason": reasons, "actor": actors}),
    "redeliver": st.fixed_dictionaries(
        {"webhook_id": ids, "after": either(0), "limit": either(1), "actor": actors}
    ),
    "create a key": st.fixed_dictionaries(
        {"name": names, "actor": actors},
        optional={
            "owner": either(None, "ann"),
            "scopes": either(None, ("admin",), ["worker:echo"]),
            "expires_at": either(None, datetime(2999, 1, 1, tzinfo=UTC)),
        },
    ),
    "revoke a key": st.fixed_dictionaries({"key_id": ids, "reason": reasons, "actor": actors}),
}
asked = st.sampled_from([*SERVICE]).flatmap(lambda name: st.tuples(st.just(name), SERVICE[name]))


# --- what a handler can do: call its context, return anything, raise anything

CONTEXT: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "progress": some(
        done=either(1), total=either(2), stage=either("one"), message=anything, data=anything
    ),
    "log": st.fixed_dictionaries(
        {"message": anything}, optional={"level": either("info"), "field": anything}
    ),
    "issue": st.fixed_dictionaries({"code": anything, "message": anything, "field": anything}),
    "input": st.fixed_dictionaries({"name": either(None, "a")}),
    "artifact": st.fixed_dictionaries(
        {"name": either("a.txt"), "content": either(b"a"), "media_type": either("text/plain")}
    ),
    "submit": st.builds(
        lambda needed, more: {**needed, **more},
        st.fixed_dictionaries({"type": types, "payload": anything}),
        some(name=either("child"), **SUBMISSION),
    ),
    "result": st.fixed_dictionaries({"job_id": anything}),
    "breaker": st.fixed_dictionaries(
        {"name": either("llm")},
        optional={"threshold": either(1), "window_s": either(1), "cooldown_s": either(1)},
    ),
    "retrying": st.fixed_dictionaries({"name": either("llm")}, optional={"attempts": either(1)}),
    "step": st.fixed_dictionaries({"name": either("one"), "was": either(None), "result": anything}),
}
raised = st.sampled_from([*MADE_ERRORS]) | some(
    code=anything, message=anything, retryable=anything, details=anything, retry_after_s=anything
)


class Act(NamedTuple):
    calls: list[tuple[str, dict[str, Any]]]
    how: str
    value: Any


acts = st.builds(
    Act,
    st.lists(
        st.sampled_from([*CONTEXT]).flatmap(lambda name: st.tuples(st.just(name), CONTEXT[name])),
        max_size=3,
    ),
    st.just("return"),
    anything,
) | st.builds(Act, st.just([]), st.just("raise"), raised)


def identity(value: Any) -> Any:
    return value


def handlers(given: list[Act]) -> list[Handler]:
    """Handlers that do the act of *given* whose index is their payload."""

    def one_of(payload: Any) -> Act:
        in_range = type(payload) is int and 0 <= payload < len(given)
        return given[payload] if in_range else Act([], "return", None)

    def end(act: Act) -> Any:
        if act.how == "return":
            return make(act.value)
        if type(act.value) is str:
            raise MADE_ERRORS[act.value]()
        raise JobError(**{"code": "odd", "message": "it is", **make(act.value)})

    @handler("echo")
    async def echo(context: Context, payload: Any) -> Any:
        return payload

    @handler("acts", max_attempts=1)
    async def acts(context: Context, payload: Any) -> Any:
        act = one_of(payload)
        for name, drawn in act.calls:
            named: dict[str, Any] = make(drawn)
            if name == "step":
                function = partial(identity, named.pop("result"))
                await context.step(named.pop("name"), function, **named)
                continue
            answer = getattr(context, name)(**named)
            if name in ("submit", "result", "artifact"):
                await answer
        return end(act)

    @handler("in a thread", max_attempts=1)
    def in_a_thread(context: ThreadContext, payload: Any) -> Any:
        act = one_of(payload)
        for name, drawn in act.calls:
            named = make(drawn)
            if name == "step":
                context.step(named.pop("name"), partial(identity, named.pop("result")), **named)
            else:
                getattr(context, name)(**named)
        return end(act)

    return [echo, acts, in_a_thread]


async def refused_or_done(name: str, call: Callable[[], Awaitable[Any]]) -> None:
    """Fails for an error that the call may not raise. The values cannot be printed."""
    try:
        await call()
    except (EventjobsError, TimeoutError, Sent):
        return
    except BaseException as error:  # noqa: BLE001 -- the errors that this test looks for
        trace = traceback.extract_tb(error.__traceback__)
        where = " ".join(f"{Path(each.filename).name}:{each.lineno}" for each in trace[-4:])
        unexpected = f"{name}: {error.__class__.__name__} {storable_text(error)} at {where}"
    else:
        return
    pytest.fail(unexpected)


def quick(folder: Path, **more: Any) -> Settings:
    return Settings(data=folder / "data", drain_s=0.5, grace_s=0.5, retry_delay_s=0, **more)


@settings(WIDE, max_examples=30)
@given(st.lists(asked, min_size=5, max_size=25), st.lists(acts, min_size=2, max_size=8))
async def test_anything_from_python_is_refused_or_becomes_a_job(
    calls: list[tuple[str, dict[str, Any]]], given: list[Act]
) -> None:
    with quick_folder() as folder:
        async with Service(handlers=handlers(given), settings=quick(folder)) as service:
            methods = surface(service)
            begun = [
                await service.submit(type, number)
                for type in ("acts", "in a thread")
                for number in range(len(given))
            ]
            for name, named in calls:
                await refused_or_done(name, partial(methods[name], **make(named)))
            for job in begun:
                ended = await asyncio.wait_for(service.wait(job.job_id), 10)
                assert ended.status in ("completed", "failed")
            assert service.ready
            last = await service.submit("echo", {"still": "here"})
            assert (await service.wait(last.job_id)).result == {"still": "here"}
        before = await reopen(folder, given)
        assert before[last.job_id][0] == "completed"
        assert {job.job_id for job in begun} <= before.keys()


async def reopen(folder: Path, given: list[Act]) -> Mapping[str, tuple[str, JobSpec]]:
    """The jobs of a new service, with and without the earlier views."""
    jobs_by_views: list[dict[str, tuple[str, JobSpec]]] = []
    for views in (True, False):
        if not views:
            for each in (folder / "data").glob("views.db*"):
                each.unlink()
        paused = quick(folder, concurrency=0)
        async with Service(handlers=handlers(given), settings=paused) as service:
            assert service.ready
            await service.views.wait_for_position(service.log.head)
            listed = await service.views.jobs({}, order="newest", cursor=None, limit=1000)
            jobs: list[Job] = [each.job for each in listed]
            # A job that expires at its end may do so before or after it is listed.
            jobs = [job for job in jobs if job.spec.ttl_s is None or job.spec.ttl_s >= 60]
            jobs_by_views.append({job.job_id: (job.status, job.spec) for job in jobs})
    assert jobs_by_views[0] == jobs_by_views[1]
    return jobs_by_views[0]


# --- declarations

OPTIONS = {
    "max_attempts": either(1),
    "timeout_s": either(1),
    "stall_timeout_s": either(1),
    "retry_delay_s": either(0),
    "ttl_s": either(0),
    "queue": either("slow"),
    "concurrency": either(1),
    "key_concurrency": either(1),
    "rate": either("10/m"),
}


async def act(context: Context, payload: Any) -> None:
    pass


@settings(WIDE, max_examples=300)
@given(types, some(process=anything, on_shutdown=either("fail"), **OPTIONS), anything)
def test_a_declaration_is_refused_or_holds(type: Any, options: Any, given: Any) -> None:
    type, options, given = make(type), make(options), make(given)
    declarations: list[Callable[[], Any]] = [
        lambda: handler(type, **options)(act),
        lambda: remote(type, model=given, **common),
        lambda: external(type, dispatch_url=given, **common),
        lambda: external(type, dispatch_url="/x", answer_timeout_s=given, **common),
    ]
    common = {name: each for name, each in options.items() if name in OPTIONS}
    for declare in declarations:
        try:
            declared = declare()
            registry = Service(handlers=[declared]).handlers
        except EventjobsError:
            continue
        except TypeError:  # an `async def` cannot be a handler in a process
            assert options.get("process") is True
            continue
        assert declared.type == type
        assert registry.get(declared.type) is declared


@settings(WIDE, max_examples=200)
@given(
    either("nightly"),
    either("0 2 * * *", "*/5 * * * *", "61 * * * *"),
    types,
    anything,
    some(timezone=either("Europe/Berlin"), catch_up_s=either(5), **SUBMISSION),
)
def test_a_schedule_is_refused_or_holds(
    name: Any, cron: Any, type: Any, payload: Any, options: dict[str, Any]
) -> None:
    name, cron, type, payload, options = map(make, (name, cron, type, payload, options))
    try:
        declared = schedule(name, cron, type, payload, **options)
    except EventjobsError:
        return
    assert declared.next_us(0) is not None
    assert declared.job(0).payload == declared.job(60_000_000).payload


# --- the client refuses bad values before it sends a request


class NoSession:
    """A session whose first request ends the test."""

    def request(self, *args: Any, **named: Any) -> Any:
        raise Sent

    get = post = put = request


@settings(WIDE, max_examples=150)
@given(
    types,
    anything,
    some(job_id=ids, idempotency_key=either("key"), **SUBMISSION),
    odd,
)
async def test_a_client_sends_or_refuses(
    type: Any, payload: Any, options: dict[str, Any], tag: Any
) -> None:
    type, payload, options = map(make, (type, payload, options))
    session: Any = NoSession()
    async with Client("http://127.0.0.1:9", session=session) as client:
        for call in (
            lambda: client.submit(type, payload, **options),
            lambda: client.page(since=tag, tag=tag),
            lambda: client.cancel(options.get("job_id", KNOWN), payload),
        ):
            await refused_or_done("client", call)
