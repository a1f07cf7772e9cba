"""Giving a job to an external service: one signed POST an attempt, and what its answer means.

There are no retries in here. A request that nobody answered may have arrived, so a second one has
to be another attempt, with a token of its own: counted, delayed and told like every other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from yarl import URL

from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptHandedOver
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import HandedOver
from eventjobs.errors import (
    InvalidInput,
    JobError,
    OutboundError,
    OutboundFailed,
    OutboundRefused,
    OutboundTimeout,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.registry import ExternalService, Handler, HandlerRegistry
from eventjobs.observability.logging import get_logger
from eventjobs.outbound.callback_address import CallbackAddress
from eventjobs.outbound.client import OutboundClient, OutboundResponse
from eventjobs.outbound.dispatch_response import RESPONSE_BYTES_MAX, AcceptedResponse, result_of
from eventjobs.outbound.signing import signature

#: A service is told so often, at most, that nobody waits for it any longer.
WITHDRAWALS_MAX = 3


def dispatch_urls(
    handlers: HandlerRegistry, outbound: OutboundClient, base_url: str | None
) -> dict[str, str]:
    """Where each external type is sent. Raises InvalidInput for what cannot be sent there."""
    return {
        each.type: _dispatch_url(each.type, each.external.dispatch_url, outbound, base_url)
        for each in handlers
        if each.external is not None
    }


def _dispatch_url(type: str, url: str, outbound: OutboundClient, base_url: str | None) -> str:
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


class ExternalDispatcher:
    """Performs external handlers, and tells their services when nobody waits any longer."""

    def __init__(
        self,
        jobs: Jobs,
        keys: MasterKey,
        outbound: OutboundClient,
        *,
        targets: Mapping[str, str],
        public_url: str | None,
        silence_s: float,
    ) -> None:
        self._jobs = jobs
        self._keys = keys
        self._outbound = outbound
        self._urls = targets
        self._silence_s = silence_s
        self.address = CallbackAddress(jobs.clock, public_url)
        self._log = get_logger("eventjobs.dispatch")

    def local_handlers(self, handlers: HandlerRegistry) -> list[HandlerRegistry]:
        """The external ones of *handlers* as functions that a runner can run, by service: for one
        that does not answer, no job of another one waits.
        """
        by_service: dict[tuple[str | None, int | None], list[Handler]] = {}
        for each in handlers:
            if each.external is not None:
                at = URL(self._urls[each.type])
                by_service.setdefault((at.host, at.port), []).append(
                    self._local_handler(each, each.external)
                )
        return [HandlerRegistry(each) for each in by_service.values()]

    def _local_handler(self, handler: Handler, service: ExternalService) -> Handler:
        async def perform(context: Context, payload: Any) -> Any:
            return await self._dispatch(context, service.answer_timeout_s)

        return replace(handler, function=perform, mode="loop")

    async def _dispatch(self, context: Context, answer_timeout_s: float) -> Any:
        """The result, or HandedOver. Raises JobError."""
        url = self._urls[context.spec.type]
        address = await self.address.get()
        body = orjson.dumps(self._request_body(context, address))
        name = f"{context.job_id}:{context.attempt}"
        headers = {**self._headers(context.spec.type, name, body), "Idempotency-Key": name}
        try:
            answer = await self._outbound.post(
                url,
                body,
                headers,
                timeout_s=answer_timeout_s,
                answer_bytes_max=RESPONSE_BYTES_MAX,
            )
        except OutboundRefused as error:
            raise JobError(error.code, error.message, retryable=False) from error
        except OutboundTimeout as error:
            raise JobError("service_timeout", f"the service gave {error.message}") from error
        except OutboundFailed as error:
            raise JobError("service_unreachable", f"the service gave {error.message}") from error
        if answer.status == 202:
            return self._handed_over(url, context, answer, address)
        return result_of(answer)

    def _request_body(self, context: Context, address: str | None) -> dict[str, Any]:
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

    def _headers(self, type: str, name: str, body: bytes) -> dict[str, str]:
        secret = self._keys.signing_secret("dispatch", type)
        made = signature(secret, name, body, self._jobs.clock.now_us())
        return {"Content-Type": "application/json", **made}

    def _handed_over(
        self, url: str, context: Context, answer: OutboundResponse, address: str | None
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

    def _cancel_url(self, url: str, context: Context, answer: OutboundResponse) -> str | None:
        try:
            given = AcceptedResponse.model_validate_json(answer.body or b"{}").cancel_url
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
        url = await self._recorded_cancel_url(job)
        if url is None:
            return
        told = {"job_id": job.job_id, "type": job.spec.type, "attempt": job.attempt, "reason": why}
        body = orjson.dumps(told)
        problem = ""
        for number in range(WITHDRAWALS_MAX):
            try:
                headers = self._headers(job.spec.type, f"{name}:cancel", body)
                answer = await self._outbound.post(url, body, headers, timeout_s=10.0)
                if answer.status < 500:
                    return
                problem = str(answer.status)
            except OutboundError as error:
                problem = error.message
            await sleep(self._jobs.clock, 2.0**number)
        self._log.warning("service not told to stop", job_id=job.job_id, error=problem)

    async def _recorded_cancel_url(self, job: Job) -> str | None:
        for recorded in await self._jobs.log.read_job(job.job_id):
            event = recorded.event
            if isinstance(event, AttemptHandedOver) and event.attempt == job.attempt:
                return event.cancel_url
        return None
