"""The firing times of a schedule, and what is refused when one is declared."""

from datetime import UTC, datetime
from itertools import islice
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.errors import InvalidInput
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.handlers.schedule import CronSchedule, schedule
from tests.conftest import Serve
from tests.support.clock import SECOND
from tests.support.schedules import HOUR_S, hourly, minutely, nightly, report, tick, us

OSLO = ZoneInfo("Europe/Oslo")
half_past_two = schedule("half past two", "30 2 * * *", "tick", timezone="Europe/Oslo")
half_hours = schedule("half hours", "*/30 * * * *", "tick", timezone="Europe/Oslo")


def in_oslo(each: CronSchedule, after_us: int, count: int) -> list[str]:
    """The next firings as the wall there shows them."""
    return [
        datetime.fromtimestamp(at_us / SECOND, OSLO).strftime("%d %H:%M%z")
        for at_us in islice(each.firings(after_us), count)
    ]


def test_an_hour_that_is_left_out_is_made_up_for_when_it_is_over() -> None:
    """On 30 March 2025 in Oslo, 01:59 is followed by 03:00."""
    firings = in_oslo(half_past_two, us(2025, 3, 29), 3)
    assert firings == ["29 02:30+0100", "30 03:00+0200", "31 02:30+0200"]
    firings = in_oslo(half_hours, us(2025, 3, 30, 0, 29), 4)
    assert firings == ["30 01:30+0100", "30 03:00+0200", "30 03:30+0200", "30 04:00+0200"]


def test_an_hour_that_comes_twice_has_a_daily_job_once_and_a_frequent_one_twice() -> None:
    """On 26 October 2025 in Oslo, 02:59 is followed by 02:00."""
    firings = in_oslo(half_past_two, us(2025, 10, 25), 3)
    assert firings == ["25 02:30+0200", "26 02:30+0200", "27 02:30+0100"]
    # Also between the first half past two and the second.
    for minute in (31, 45, 59):
        assert in_oslo(half_past_two, us(2025, 10, 26, 0, minute), 1) == ["27 02:30+0100"]
        assert in_oslo(half_past_two, us(2025, 10, 26, 1, minute), 1) == ["27 02:30+0100"]
    firings = in_oslo(half_hours, us(2025, 10, 26, 0, 0), 4)
    assert firings == ["26 02:30+0200", "26 02:00+0100", "26 02:30+0100", "26 03:00+0100"]


crons = st.sampled_from([nightly, hourly, minutely, half_past_two, half_hours])
moments = st.integers(us(2025, 3, 29), us(2025, 3, 31)) | st.integers(
    us(2025, 10, 25), us(2025, 10, 27)
)


@given(crons, moments, st.integers(0, 40 * HOUR_S))
def test_the_newest_firing_is_the_last_of_all(
    each: CronSchedule, after_us: int, span_s: int
) -> None:
    until_us = after_us + span_s * SECOND
    all_of_them = []
    for at_us in each.firings(after_us):
        if at_us > until_us:
            break
        all_of_them.append(at_us)
    assert all_of_them == sorted(set(all_of_them))
    assert each.newest_us(after_us, until_us) == (all_of_them[-1] if all_of_them else None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a", "* * * *", "tick"), "five fields"),
        (("a", "* * * * * *", "tick"), "five fields"),
        (("a", "61 * * * *", "tick"), "Bad minute"),
        (("a", "0 0 30 2 *", "tick"), "Bad day"),
        (("", "* * * * *", "tick"), "1 to 80"),
        (("a\n", "* * * * *", "tick"), "1 to 80"),
        (("a", "* * * * *", "tick", float("nan")), "JSON"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_when_it_is_declared(
    arguments: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        schedule(*arguments)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"timezone": "Europe/Atlantis"}, "there is no time zone"),
        ({"timezone": "../etc/passwd"}, "time zone"),
        ({"timezone": ""}, "time zone"),
        ({"run_at": datetime.now(UTC)}, "run_at cannot be set"),
        ({"parent": "x"}, "parent cannot be set"),
        ({"catch_up_s": -1}, "catch_up_s"),
        ({"catch_up_s": float("inf")}, "catch_up_s"),
    ],
)
def test_a_field_that_cannot_be_is_refused_too(fields: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        schedule("a", "* * * * *", "tick", **fields)


def test_schedules_come_with_handlers() -> None:
    module = ModuleType("mine")
    vars(module).update(a=tick, b=hourly, c=5)
    registry = HandlerRegistry.of(module)
    assert (registry.types(), registry.schedules) == (["tick"], [hourly])
    assert HandlerRegistry.of([hourly, tick]).with_defaults([report]).schedules == [hourly]
    with pytest.raises(ValueError, match="two schedules are called 'hourly'"):
        HandlerRegistry([hourly, hourly])


async def test_a_schedule_that_does_not_fit_its_handler_stops_the_start(serve: Serve) -> None:
    wrong = schedule("wrong", "* * * * *", "report", {"days": "x"})
    with pytest.raises(InvalidInput, match="schedule 'wrong'") as refusal:
        await serve(report, wrong)
    assert [each["field"] for each in refusal.value.errors] == ["payload.days"]
    with pytest.raises(InvalidInput, match="schedule 'hourly': no handler for type 'tick'"):
        await serve(report, hourly)
