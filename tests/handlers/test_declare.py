"""The declaration of handlers: what is accepted, refused and derived."""

from typing import Any

import pytest

import eventjobs
from eventjobs.errors import InvalidInput
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.handlers.thread_context import ThreadContext
from tests.support.errors import error_fields


def test_what_another_process_cannot_import_is_refused() -> None:
    register = handler("x", process=True)
    with pytest.raises(TypeError, match="an async def runs on the loop"):

        @register
        async def on_the_loop(context: Context, payload: Any) -> None: ...

    with pytest.raises(TypeError, match="define it at the top level of a module"):

        @register
        def inner(context: ThreadContext, payload: Any) -> None: ...

    with pytest.raises(TypeError, match="define it at the top level of a module"):
        register(lambda context, payload: None)


def test_a_handler_takes_a_context_and_a_payload() -> None:
    with pytest.raises(TypeError, match=r"'one' must take \(context, payload\)"):

        @handler("one")
        async def one(context: Context) -> None: ...

    with pytest.raises(TypeError, match=r"'named' must take \(context, payload\)"):

        @handler("named")
        async def by_name(context: Context, *, payload: Any) -> None: ...


@pytest.mark.parametrize(("old", "new"), [("outside", "remote"), ("Handlers", "HandlerRegistry")])
def test_an_old_name_works_with_a_warning(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"eventjobs\.{old} is now eventjobs\.{new}"):
        assert getattr(eventjobs, old) is getattr(eventjobs, new)


@pytest.mark.parametrize("keys", ["password", ["password", 5], [""], {"password"}, ["k"] * 101])
def test_sensitive_fields_are_a_list_of_names(keys: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        remote("charge", sensitive=keys)
    assert {each.split(".")[0] for each in error_fields(refused.value)} == {"sensitive"}
    assert remote("charge", sensitive=["password"]).sensitive == ("password",)
