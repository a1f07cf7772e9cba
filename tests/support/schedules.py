"""Schedules and the handlers of their jobs."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.schedule import schedule
from tests.support.clock import SECOND

HOUR_S = 3600


class Report(BaseModel):
    days: int


@handler("report")
async def report(context: Context, payload: Report) -> int:
    return payload.days


@handler("tick")
async def tick(context: Context, payload: Any) -> None: ...


nightly = schedule("nightly", "0 3 * * *", "report", {"days": 1}, timezone="Europe/Oslo")
hourly = schedule("hourly", "0 * * * *", "tick", tags=["t"], priority=7)
punctual = schedule("punctual", "0 * * * *", "tick", catch_up_s=0)
minutely = schedule("minutely", "* * * * *", "tick")


def us(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * SECOND
