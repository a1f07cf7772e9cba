"""Giving a job to an external service: one signed POST an attempt, and what its answer means.

There are no retries in here. A request that nobody answered may have arrived, so a second one has
to be another attempt, with a token of its own: counted, delayed and told like every other.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, ValidationError
from yarl import URL

from eventjobs.clock import Clock, sleep, timeout
from eventjobs.errors import (
    InvalidInput,
    JobError,
    OutboundError,
    OutboundFailed,
    OutboundRefused,
    OutboundTimeout,
)
from eventjobs.events import AttemptHandedOver
from eventjobs.handlers import Context, External, Handler, Handlers, plain_text
from eventjobs.job import Job
from eventjobs.jobs import Jobs
from eventjobs.keys import Keys
from eventjobs.leases import Leases
from eventjobs.logs import get_logger
from eventjobs.outbound import Answer, Outbound, signature
from eventjobs.outcomes import HandedOver

#: Of an answer; a service with more to tell stores it somewhere and tells where.
ANSWER_BYTES_MAX = 8 * 2**20
#: How long the first jobs of a start wait for the service to listen somewhere.
LISTENING_S = 5.0
#: A service is told so often, at most, that nobody waits for it any longer.
TELLINGS_MAX = 3


class Address:
    """Where this service can be called back: as it was set, or where it listens."""

    def __init__(self, clock: Clock, url: str | None) -> None:
        self._clock = clock
        self._url = url
        self._known = asyncio.Event()
        if url is not None:
            self._known.set()

    def listening(self, url: str) -> None:
        if self._url is None:
            self._url = url
            self._known.set()

    async def get(self) -> str | None:
        """None when it does not listen, and was not about to."""
        try:
            async with timeout(self._clock, LISTENING_S):
                await self._known.wait()
        except TimeoutError:
            self._known.set()  # nobody else needs to wait
        return self._url


def targets(handlers: Handlers, outbound: Outbound, base_url: str | None) -> dict[str, str]:
    """Where each external type is sent. Raises InvalidInput for what cannot be sent there."""
    return {
        each.type: _target(each.type, each.external.dispatch_url, outbound, base_url)
        for each in handlers
        if each.external is not None
    }


def _target(type: str, url: str, outbound: Outbound, base_url: str | None) -> str:
    if url.startswith("/"):
        if base_url is None:
            raise InvalidInput(f"{type} is sent to {url}: set EVENTJOBS_PYTHON_SERVICE_URL")
        url = base_url.rstrip("/") + url
    try:
        outbound.check(url)
    except OutboundRefused as error:
        raise InvalidInput(f"{type} is sent to {url}: {error.message}") from error
    return url


def service_name(url: str) -> str:
    """What the service at *url* is called in the log."""
    return f"service {URL(url).host}"


class ExternalServices:
    """Performs external handlers, and tells their services when nobody waits any longer."""

    def __init__(
        self,
        jobs: Jobs,
        leases: Leases,
        keys: Keys,
        outbound: Outbound,
        *,
        targets: Mapping[str, str],
        public_url: str | None,
        silence_s: float,
    ) -> None:
        self._jobs = jobs
        self._leases = leases
        self._keys = keys
        self._outbound = outbound
        self._targets = targets
        self._silence_s = silence_s
        self.address = Address(jobs.clock, public_url)
        self._log = get_logger("eventjobs.dispatch")
        leases.withdraw_with(self.withdraw)

    @property
    def pending(self) -> list[str]:
        """The ids of the jobs that services have taken on."""
        return self._leases.at_services()

    def bound(self, handlers: Handlers) -> list[Handlers]:
        """The external ones of *handlers* as functions that a runner can run, by service: for one
        that does not answer, no job of another one waits.
        """
        by_service: dict[tuple[str | None, int | None], list[Handler]] = {}
        for each in handlers:
            if each.external is not None:
                at = URL(self._targets[each.type])
                by_service.setdefault((at.host, at.port), []).append(
                    self._bound(each, each.external)
                )
        return [Handlers(each) for each in by_service.values()]

    def _bound(self, handler: Handler, service: External) -> Handler:
        async def perform(context: Context, payload: Any) -> Any:
            return await self._dispatch(context, service.answer_timeout_s)

        return replace(handler, function=perform, mode="loop")

    async def _dispatch(self, context: Context, answer_timeout_s: float) -> Any:
        """The result, or HandedOver. Raises JobError."""
        url = self._targets[context.spec.type]
        address = await self.address.get()
        body = orjson.dumps(self._told(context, address))
        name = f"{context.job_id}:{context.attempt}"
        headers = {**self._signed(context.spec.type, name, body), "Idempotency-Key": name}
        try:
            answer = await self._outbound.post(
                url,
                body,
                headers,
                timeout_s=answer_timeout_s,
                answer_bytes_max=ANSWER_BYTES_MAX,
            )
        except OutboundRefused as error:
            raise JobError(error.code, error.message, retryable=False) from error
        except OutboundTimeout as error:
            raise JobError("service_timeout", f"the service gave {error.message}") from error
        except OutboundFailed as error:
            raise JobError("service_unreachable", f"the service gave {error.message}") from error
        if answer.status == 202:
            return self._handed_over(url, context, answer, address)
        return _result(answer)

    def _told(self, context: Context, address: str | None) -> dict[str, Any]:
        spec = context.spec
        jobs_url = None if address is None else f"{address.rstrip('/')}/v1/jobs/{context.job_id}"
        token = self._keys.callback_token(context.job_id, context.attempt)
        artifacts = [
            {
                "name": each.name,
                "sha256": each.sha256,
                "size": each.size,
                "media_type": each.media_type,
                "url": jobs_url and f"{jobs_url}/artifacts/{URL.build(path=each.name)}",
            }
            for each in spec.artifacts
        ]
        return {
            "job_id": context.job_id,
            "type": spec.type,
            "attempt": context.attempt,
            "payload": spec.payload,
            "artifacts": artifacts,
            "callback": jobs_url and {"url": f"{jobs_url}/callback", "token": token},
        }

    def _signed(self, type: str, name: str, body: bytes) -> dict[str, str]:
        secret = self._keys.signing_secret("dispatch", type)
        made = signature(secret, name, body, self._jobs.clock.now_us())
        return {"Content-Type": "application/json", **made}

    def _handed_over(
        self, url: str, context: Context, answer: Answer, address: str | None
    ) -> HandedOver:
        if address is None:
            raise JobError(
                "service_error",
                "the service wants to call back, and this one listens nowhere",
                retryable=False,
            )
        spec = context.spec
        silence_s = spec.stall_timeout_s or spec.timeout_s or self._silence_s
        return HandedOver(service_name(url), silence_s, self._cancel_url(url, context, answer))

    def _cancel_url(self, url: str, context: Context, answer: Answer) -> str | None:
        try:
            given = _Taken.model_validate_json(answer.body or b"{}").cancel_url
            if given is None:
                return None
            cancel_url = str(URL(url).join(URL(given)))
            self._outbound.check(cancel_url)
        except (ValueError, OutboundRefused) as error:  # a ValidationError is a ValueError
            # The service has the job: that it cannot be told to stop is no reason to lose it.
            self._log.warning("no cancel_url", job_id=context.job_id, error=type(error).__name__)
            return None
        return cancel_url

    async def withdraw(self, job: Job, why: str) -> None:
        """Tell the service of *job*'s attempt that nobody waits for it any longer, if it can be."""
        name = f"{job.job_id}:{job.attempt}"
        url = await self._told_to_cancel_at(job)
        if url is None:
            return
        told = {"job_id": job.job_id, "type": job.spec.type, "attempt": job.attempt, "reason": why}
        body = orjson.dumps(told)
        problem = ""
        for number in range(TELLINGS_MAX):
            try:
                headers = self._signed(job.spec.type, f"{name}:cancel", body)
                answer = await self._outbound.post(url, body, headers, timeout_s=10.0)
                if answer.status < 500:
                    return
                problem = str(answer.status)
            except OutboundError as error:
                problem = error.message
            await sleep(self._jobs.clock, 2.0**number)
        self._log.warning("service not told to stop", job_id=job.job_id, error=problem)

    async def _told_to_cancel_at(self, job: Job) -> str | None:
        for recorded in await self._jobs.log.read_job(job.job_id):
            event = recorded.event
            if isinstance(event, AttemptHandedOver) and event.attempt == job.attempt:
                return event.cancel_url
        return None


class _Taken(BaseModel):
    """What matters of the body of a 202."""

    cancel_url: str | None = None


ErrorCode = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]


class ServiceError(BaseModel):
    """What is wrong, in a service's own words; *retryable* as its status says, if it does not."""

    code: ErrorCode
    message: str = Field("", max_length=4000)
    retryable: bool | None = None
    details: Any = None


def _result(answer: Answer) -> Any:
    """The body, when all is well. Raises JobError when it is not."""
    status = answer.status
    if 200 <= status < 300:
        if not answer.whole:
            problem = f"the service answered with more than {ANSWER_BYTES_MAX} bytes"
            raise JobError("service_error", problem, retryable=False)
        try:
            return orjson.loads(answer.body) if answer.body.strip() else None
        except orjson.JSONDecodeError as error:
            problem = "the service answered with something that is not JSON"
            raise JobError(
                "service_error", problem, retryable=False, details=_text(answer)
            ) from error
    retryable = status >= 500 or status in (408, 429)
    try:
        said = ServiceError.model_validate_json(answer.body)
    except ValidationError:
        code = "service_error" if retryable or status < 400 else "service_refused"
        said = ServiceError(
            code=code, message=f"the service answered with status {status}", details=_text(answer)
        )
    raise JobError(
        said.code,
        said.message,
        retryable=retryable if said.retryable is None else said.retryable,
        details=said.details,
        retry_after_s=answer.retry_after_s,
    )


def _text(answer: Answer) -> str:
    return plain_text(answer.body[:1000].decode(errors="replace"))
