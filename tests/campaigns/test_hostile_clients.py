"""Hostile requests leave the service healthy and its memory flat; see tools/soak/hostile."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from eventjobs.tools.soak.hostile.campaign import Campaign, Plan
from tests.conftest import CAMPAIGN_RESULT


@pytest.mark.timeout(300)
def test_hostile_requests_leave_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    plan = Plan(rounds=1, seed=1, texts=6, mutations=200, slow_clients=20, repeats=6)
    outcome = asyncio.run(Campaign(tmp_path / "data", plan).run())
    record_property(CAMPAIGN_RESULT, str(outcome))
    assert not outcome.faults
    assert {200, 202, 400, 404, 409, 413, 415, 417, 421, 422, 431, 501} <= set(outcome.statuses)


NOTICED = {
    "KEEPS_REQUESTS": "bytes in memory",
    "CONTINUES_AFTER_UPGRADES": "was answered [404, 202]",
    "ECHOES_REQUEST_IDS": "no request id",
    "WRITES_LINES": "no JSON in",
}


@pytest.mark.parametrize("sabotage", NOTICED)
def test_a_service_is_noticed_that(sabotage: str, tmp_path: Path) -> None:
    app = f"eventjobs.tools.soak.hostile.sabotage:{sabotage}"
    repeats = 4 if sabotage == "KEEPS_REQUESTS" else 0
    plan = Plan(1, seed=2, texts=1, mutations=0, slow_clients=0, repeats=repeats, app=app)
    outcome = asyncio.run(Campaign(tmp_path / "data", plan).run())
    assert any(NOTICED[sabotage] in each for each in outcome.faults), outcome.faults
