"""The service answers requests that are drawn from the OpenAPI document as the document says."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from eventjobs.http.openapi import document
from eventjobs.http.routes import ROUTES
from eventjobs.tools.soak.api.campaign import CALLERS, NO_KEY, Plan, campaign, send
from eventjobs.tools.soak.api.handlers import HANDLERS
from tests.conftest import CAMPAIGN_RESULT, Connect
from tests.support.http_client import Client

#: `make soak` has all phases of each mode, more requests, and other seeds.
PLANS = [
    Plan("off", seed=1, examples=1, phases=("coverage", "fuzzing")),
    Plan("required", seed=1, examples=3, phases=("fuzzing",)),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.auth)
def test_each_response_is_as_the_document_says(
    plan: Plan, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = asyncio.run(campaign(tmp_path / "data", plan))
    record_property(CAMPAIGN_RESULT, str(outcome))
    assert not outcome.faults, "\n".join(outcome.faults)
    assert set(outcome.requests) == {each.name for each in CALLERS[plan.auth]}
    assert min(outcome.requests.values()) >= len(ROUTES)


# --- faults are found


def only(path: str, api: Client, auth: str = "off") -> bytes:
    """The document with one path of *api*, for the mode *auth*."""
    spec = orjson.loads(document(ROUTES, api.service.handlers, auth))
    return orjson.dumps(spec | {"paths": {path: spec["paths"][path]}})


FEW = Plan("off", seed=1, examples=1, phases=("fuzzing",))


async def test_an_error_of_the_service_is_found(
    client: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("no")

    api = await client(*HANDLERS)
    monkeypatch.setattr(api.service.views, "counts", fail)
    _, [fault] = await send(api.listening.url, only("/v1/counts", api), tmp_path / "x", FEW, NO_KEY)
    assert "[500] Internal Server Error" in fault


async def test_a_response_without_the_credential_that_it_needs_is_found(
    client: Connect, tmp_path: Path
) -> None:
    api = await client(*HANDLERS)
    needed = only("/v1/jobs/{id}/why", api, "required")
    _, [fault] = await send(api.listening.url, needed, tmp_path / "x", FEW, NO_KEY)
    assert "without a credential GET /v1/jobs/{id}/why was answered with 404" in fault
