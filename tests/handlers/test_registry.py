"""Handlers by type, their payloads, and their defaults."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, Field

from eventjobs.domain.spec import JobSpec
from eventjobs.errors import InvalidInput, UnknownType
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler, HandlerRegistry
from eventjobs.handlers.thread_context import ThreadContext
from tests.conftest import Serve


class Order(BaseModel):
    item: str
    count: int = Field(1, ge=1)


@handler("order")
async def order(context: Context, payload: Order) -> dict[str, Any]:
    return {"text": f"{payload.count} x {payload.item}"}


@handler("order in a thread")
def order_in_a_thread(context: ThreadContext, payload: Order) -> Order:
    return payload


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("who")
async def who(context: Context, payload: Any) -> list[Any]:
    return [context.job_id, context.attempt, context.spec.tags, context.cancelled]


def test_handlers_come_from_a_module_a_list_or_one_alone() -> None:
    module = ModuleType("mine")
    vars(module).update(first=echo, second=order, other=5)
    for holder, types in [
        (module, ["echo", "order"]),
        ([echo, who], ["echo", "who"]),
        (echo, ["echo"]),
        (HandlerRegistry([who]), ["who"]),
        ((), []),
    ]:
        assert HandlerRegistry.of(holder).types() == types
    with pytest.raises(TypeError, match="holds no handlers"):
        HandlerRegistry.of(5)


def test_two_handlers_of_one_type_are_refused() -> None:
    with pytest.raises(ValueError, match="two handlers for 'echo'"):
        HandlerRegistry([echo, replace(order, type="echo")])


def test_an_unknown_type_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownType, match="there are: echo, who"):
        HandlerRegistry([who, echo]).get("other")


async def test_a_payload_that_does_not_fit_is_refused_and_its_fields_named(serve: Serve) -> None:
    service = await serve(order)
    with pytest.raises(InvalidInput) as refusal:
        await service.submit("order", {"count": 0})
    fields = {each["field"]: each["message"] for each in refusal.value.errors}
    assert set(fields) == {"payload.item", "payload.count"}
    assert service.log.head == 0


@pytest.mark.parametrize("kind", ["order", "order in a thread"])
async def test_a_handler_gets_its_payload_as_the_model(serve: Serve, kind: str) -> None:
    service = await serve(order, order_in_a_thread)
    job = await service.submit(kind, {"item": "tea", "count": 2})
    job = await service.wait(job.job_id)
    assert job.spec.payload == {"item": "tea", "count": 2}
    assert job.result in ({"text": "2 x tea"}, {"item": "tea", "count": 2})


async def test_a_payload_that_fits_no_longer_fails_for_good(serve: Serve) -> None:
    """An older handler accepted it, for example: a retry would not help."""
    service = await serve(order)
    outcome = await service.jobs.submit(JobSpec("order", {}, max_attempts=3), actor="test")
    job = await service.wait(outcome.job.job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error == {
        "code": "invalid_payload",
        "class": "input",
        "message": "the payload does not fit order",
        "retryable": False,
    }


async def test_a_handler_knows_its_job(serve: Serve) -> None:
    service = await serve(who)
    job = await service.submit("who", tags=["a", "b"])
    job = await service.wait(job.job_id)
    assert job.result == [job.job_id, 1, ["a", "b"], False]


def test_a_handler_is_never_a_coroutine_by_mistake() -> None:
    assert echo.mode == "loop"
    assert order_in_a_thread.mode == "thread"
    assert isinstance(echo, Handler)
