"""A shutdown costs no attempt and no job, exits with 0, and leaves no process behind."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from eventjobs.tools.soak.kills.campaign import Plan
from eventjobs.tools.soak.kills.stops import Stops
from tests.conftest import CAMPAIGN_RESULT

STOPS = 100


@pytest.mark.timeout(600)
def test_a_hundred_shutdowns_under_load_cost_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    stops = Stops(tmp_path / "data", Plan(STOPS, seed=1))
    outcome = asyncio.run(stops.run())
    record_property(
        CAMPAIGN_RESULT, f"{outcome}, with SIGTERM; {stops.released} attempts given back"
    )
    assert not outcome.faults
    assert outcome.kills == STOPS
    assert stops.released > STOPS, "hardly anything ran when it was stopped"


NOTICED = {
    "COUNTS_SHUTDOWNS": "stopped counts, though only a shutdown can be its cause",
    "LEAVES_PROCESSES": "left a process behind: sleep 60",
    "CUTS_OFF": "is in the log, and was never answered",
}


@pytest.mark.parametrize("sabotage", NOTICED)
def test_a_service_is_noticed_that(sabotage: str, tmp_path: Path) -> None:
    plan = Plan(10, seed=2, app=f"eventjobs.tools.soak.kills.sabotage:{sabotage}")
    outcome = asyncio.run(Stops(tmp_path / "data", plan).run())
    assert any(NOTICED[sabotage] in each for each in outcome.faults), outcome.faults
