"""Jobs of the external type `analyse`, for tests of their service."""

from typing import Any

from eventjobs.clock import Clock
from eventjobs.handlers.declare import external
from eventjobs.handlers.registry import Handler
from tests.conftest import Connect
from tests.support.external_service import LOOPBACK, Dispatched, ExternalService
from tests.support.http_client import Client
from tests.support.waiting import job_when

ACCEPTED: tuple[int, Any] = (202, {})


def analyse(at: ExternalService, **more: Any) -> Handler:
    more = {"max_attempts": 1, **more}
    return external("analyse", dispatch_url=f"{at.url}/analyse", **more)


async def connect(
    client: Connect, handler: Handler, clock: Clock | None = None, **settings: Any
) -> Client:
    return await client(handler, clock=clock, outbound_allow=LOOPBACK, **settings)


async def ended_job(api: Client, job_id: str) -> Any:
    """The job as it is answered, once it has ended."""
    job = await api.service.wait(job_id)
    await api.service.views.wait_for_position(job.position)
    return (await api.get(f"/v1/jobs/{job_id}")).json


async def submit_and_accept(api: Client, at: ExternalService, **spec: Any) -> Dispatched:
    """What the service was sent, once it has taken the job."""
    job = await api.submit("analyse", **spec)
    dispatched = await at.next()
    await job_when(api.service, job["job_id"], lambda job: job.silence_s is not None)
    await api.service.views.wait_for_position(api.service.log.head)
    return dispatched


def job_id_of(dispatched: Dispatched) -> str:
    job_id: str = dispatched.body["job_id"]
    return job_id
