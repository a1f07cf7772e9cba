"""A service to which the tests of commands pass bad values."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Serve


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Service]:
    """A service. After the test its log must be empty, and it must run a job."""
    service = await serve(echo)
    yield service
    assert service.log.head == 0
    job = await service.wait((await service.submit("echo", 2)).job_id)
    assert (job.status, job.result, service.ready) == ("completed", 2, True)
