"""JSON values of users are stored as text: each reader gets a copy of its own."""

import asyncio
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from eventjobs.domain.events import (
    AttemptFailed,
    Event,
    JobCompleted,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.domain.job import Job
from eventjobs.domain.json_fields import JSONField, as_fragment, fragment_of, json_fields
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobError, NotJSON
from eventjobs.execution.processes.child import _JOB
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.schedule import CronSchedule, schedule
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.projections.attempt_progress import Progress
from tests.conftest import Serve
from tests.support.process_handlers import empties
from tests.support.waiting import recorded_of

ID = "8c1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11"


def empty(value: Any) -> None:
    """Empty *value* and every container in it."""
    for each in list(value.values()) if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            empty(each)
    value.clear()


@pytest.fixture
def payloads() -> list[Any]:
    return []


def on_the_loop(payloads: list[Any]) -> Handler:
    @handler("work", retry_delay_s=0)
    async def work(context: Context, payload: Any) -> Any:
        return twice(context, payload, payloads)

    return work


def in_a_thread(payloads: list[Any]) -> Handler:
    @handler("work", retry_delay_s=0)
    def work(context: ThreadContext, payload: Any) -> Any:
        return twice(context, payload, payloads)

    return work


def twice(context: Context | ThreadContext, payload: Any, payloads: list[Any]) -> Any:
    payloads.append(orjson.dumps(payload))
    empty(payload)
    payloads.append(orjson.dumps(context.spec.payload))
    empty(context.spec.payload)
    if context.attempt == 1:
        raise ValueError("again")
    return {"list": [1]}


@pytest.mark.parametrize("make_handler", [on_the_loop, in_a_thread])
async def test_a_retry_gets_the_payload_that_was_submitted(
    serve: Serve, payloads: list[Any], make_handler: Callable[[list[Any]], Handler]
) -> None:
    service = await serve(make_handler(payloads))
    payload = {"id": 1, "rows": [{"a": [1, 2]}]}
    job = await service.submit("work", payload, job_id=ID)
    empty(payload)
    await service.wait(job.job_id)
    assert payloads == [b'{"id":1,"rows":[{"a":[1,2]}]}'] * 4
    again = await service.submit("work", {"id": 1, "rows": [{"a": [1, 2]}]}, job_id=ID)
    assert again.version > 1, "the same submission is the same job"


async def test_a_retry_in_a_process_gets_it_too(serve: Serve) -> None:
    service = await serve(empties)
    job = await service.submit("empties", {"id": [1, 2]})
    ended = await asyncio.wait_for(service.wait(job.job_id), 20)
    assert ended.result == {"id": [1, 2]}


async def test_the_first_attempt_sees_what_one_after_a_restart_sees(
    serve: Serve, payloads: list[Any]
) -> None:
    @dataclass
    class Point:
        x: int

    @handler("work", retry_delay_s=0)
    async def work(context: Context, payload: Any) -> Any:
        payloads.append(payload)
        if context.attempt == 1:
            raise ValueError("again")

    service = await serve(work)
    job = await service.submit("work", {"pair": (1, 2), "point": Point(3)})
    assert job.spec.payload == {"pair": [1, 2], "point": {"x": 3}}
    await service.wait(job.job_id)
    assert payloads == [job.spec.payload] * 2
    [recorded] = await service.log.read_job(job.job_id, limit=1)
    assert orjson.loads(recorded.body or b"") == {"payload": job.spec.payload}


async def test_every_reader_has_a_job_of_its_own(serve: Serve, payloads: list[Any]) -> None:
    service = await serve(on_the_loop(payloads))
    job = await service.submit("work", {"a": [1]})
    for _ in range(2):
        ended = await service.wait(job.job_id)
        assert (ended.spec.payload, ended.result) == ({"a": [1]}, {"list": [1]})
        empty(ended.result)
        empty(ended.spec.payload)
    now = await service.jobs.current(job.job_id)
    await service.views.wait_for_position(service.log.head)
    view = await service.views.job(job.job_id)
    assert now is not None
    assert view is not None
    assert now.result == view.job.result == {"list": [1]}


async def test_an_error_and_its_details_are_copies(serve: Serve) -> None:
    details = {"rows": [1]}

    @handler("work", max_attempts=1)
    async def work(context: Context, payload: Any) -> None:
        raise JobError("bad", "no", details=details)

    service = await serve(work)
    job = await service.wait((await service.submit("work")).job_id)
    empty(details)
    empty(job.error)
    error = (await service.wait(job.job_id)).error
    assert error is not None
    assert error["code"] == "bad"
    [failed] = await recorded_of(service, job.job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    empty(failed.event.details)
    assert failed.event.details == {"rows": [1]}


async def test_what_a_handler_tells_is_as_it_was_when_it_was_told(serve: Serve) -> None:
    @handler("work")
    async def work(context: Context, payload: Any) -> Any:
        data = {"rows": [1]}
        context.progress(1, 2, data=data)
        context.log("line", rows=data)
        context.issue("odd", "it is", rows=data)
        empty(data)
        empty(context.issues or [])
        return context.issues

    service = await serve(work)
    job = await service.wait((await service.submit("work")).job_id)
    assert job.issues == job.result == [{"rows": {"rows": [1]}, "code": "odd", "message": "it is"}]
    events = [each.event for each in await service.log.read_job(job.job_id)]
    assert [each.data for each in events if isinstance(each, ProgressReported)] == [{"rows": [1]}]
    fields = [each.fields for each in events if isinstance(each, LogWritten)]
    assert fields == [{"rows": {"rows": [1]}}] * 2
    await service.views.wait_for_position(service.log.head)
    view = await service.views.job(job.job_id)
    assert view is not None
    assert view.progress is not None
    empty(view.progress.data)
    assert view.progress.data == {"rows": [1]}


async def test_a_child_has_one_result_for_all_who_ask(serve: Serve) -> None:
    @handler("child")
    async def child(context: Context, payload: Any) -> Any:
        return {"rows": [1]}

    @handler("parent")
    async def parent(context: Context, payload: Any) -> Any:
        child_id = await context.submit("child")
        empty(await context.result(child_id))
        return await context.result(child_id)

    service = await serve(child, parent)
    job = await service.wait((await service.submit("parent")).job_id)
    assert job.result == {"rows": [1]}


async def test_a_stored_result_of_a_step_is_as_the_step_returned_it(serve: Serve) -> None:
    @handler("work", retry_delay_s=0)
    async def work(context: Context, payload: Any) -> Any:
        one = await context.step("one", lambda: {"rows": (1,)})
        first = orjson.loads(orjson.dumps(one))
        empty(one)
        if context.attempt == 1:
            raise ValueError("again")
        renamed = await context.step("another", dict, was="one")
        empty(renamed)
        return [first, await context.step("third", dict, was="one")]

    service = await serve(work)
    job = await service.wait((await service.submit("work")).job_id)
    assert job.result == [{"rows": [1]}, {"rows": [1]}]


def test_each_firing_of_a_schedule_has_the_declared_payload() -> None:
    payload = {"rows": [1]}
    often: CronSchedule = schedule("often", "* * * * *", "work", payload)
    empty(payload)
    empty(often.job(0).payload)
    assert often.job(60_000_000).payload == often.spec.payload == {"rows": [1]}


async def test_events_that_were_read_cannot_be_changed(serve: Serve, payloads: list[Any]) -> None:
    service = await serve(on_the_loop(payloads))
    job = await service.wait((await service.submit("work", {"a": [1]})).job_id)
    for _ in range(2):
        for each in await service.log.read_job(job.job_id):
            if isinstance(each.event, JobCompleted):
                empty(each.event.result)
                assert each.event.result == {"list": [1]}


# --- the mechanism


@json_fields("data")
@dataclass(frozen=True)
class Document:
    data: Any = None


def test_a_json_field_is_a_new_value_at_each_reading() -> None:
    value = {"a": [1]}
    document = Document(value)
    empty(value)
    empty(document.data)
    assert document.data == {"a": [1]}
    assert document.data is not document.data
    assert (document, replace(document, data=2)) == (Document({"a": [1]}), Document(2))
    assert (Document().data, fragment_of(Document(), "data")) == (None, None)
    assert Document(as_fragment([1])).data == [1]
    with pytest.raises(NotJSON, match="kept as JSON"):
        Document({"a": float("nan")})
    for copied in (pickle.loads(pickle.dumps(document)), deepcopy(document)):
        assert copied == document
    assert orjson.dumps(document) == b'{"data":{"a":[1]}}'


@pytest.mark.parametrize("kind", [*Event.__args__, JobSpec, Job, Progress])
def test_a_class_with_json_has_no_slots(kind: type[Any]) -> None:
    """Else `orjson.dumps` of one would crash the process: it holds no descriptor's value."""
    has_json = any(isinstance(each, JSONField) for each in vars(kind).values())
    assert not (has_json and "__slots__" in vars(kind))


def test_a_job_that_was_read_by_pydantic_is_like_any_other() -> None:
    failed = {"code": "x", "class": "job", "message": "no", "retryable": True}
    job = Job(ID, JobSpec("work", {"a": 1}), 1, 1, 1, 1, 1, error=failed)
    read = _JOB.validate_python(orjson.loads(orjson.dumps(job)))
    assert read == job
    empty(read.error)
    assert read.error == failed


def test_a_step_cannot_be_changed_by_what_it_returned() -> None:
    result = {"a": 1}
    event = StepCompleted(1, "one", 0, result)
    empty(result)
    assert event.result == {"a": 1}
