"""Views are compared as they were at one moment, while the service may replace them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiosqlite
import pytest

from eventjobs.errors import ForeignDatabase
from eventjobs.projections.store import Store
from eventjobs.storage.sqlite import connect
from eventjobs.tools import compare_views
from tests.support.busy_log import busy_log
from tests.support.view_rows import apply, dump

HISTORY = busy_log(0)[:60]


@pytest.fixture
def once_opened(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens right after a copy has opened the views; the first one at the first time."""
    actions: list[Callable[[], object]] = []

    async def connect_and_act(path: Path, *, read_only: bool) -> aiosqlite.Connection:
        connection = await connect(path, read_only=read_only)
        if actions:
            actions.pop(0)()
        return connection

    monkeypatch.setattr(compare_views, "connect", connect_and_act)
    return actions


def copy(views: Path) -> Path:
    copied = views.with_name("copy.db")
    asyncio.run(compare_views.copy(views, copied))
    return copied


def test_a_copy_of_views_that_are_replaced_meanwhile_is_of_the_new_ones(
    tmp_path: Path, once_opened: list[Callable[[], object]]
) -> None:
    """A rebuild in the service removes the old file: a copy of it would be of no use."""
    views, fresh = tmp_path / "views.db", tmp_path / "views.db.new"
    asyncio.run(apply(views, [HISTORY[:30]]))
    asyncio.run(apply(fresh, [HISTORY]))
    expected = dump(fresh)
    once_opened.append(lambda: Store.replace(fresh, views))
    assert dump(copy(views)) == expected


def test_views_that_are_removed_meanwhile_are_refused(
    tmp_path: Path, once_opened: list[Callable[[], object]]
) -> None:
    views = tmp_path / "views.db"
    asyncio.run(apply(views, [HISTORY]))
    once_opened.append(lambda: Store.remove(views))
    for _ in range(2):  # then they are not there at all
        with pytest.raises(ForeignDatabase, match="views"):
            copy(views)
