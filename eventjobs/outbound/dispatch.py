"""Dispatch of jobs to external services: one signed POST for each attempt.

Nothing here is retried. A request without a response may have arrived, so a second one has to be
another attempt, with a callback token of its own, and counted and delayed like any other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from yarl import URL

from eventjobs.auth.master_key import MasterKey
from eventjobs.backoff import Backoff
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

#: Stop requests, at most, for one attempt.
WITHDRAWALS_MAX = 3
WITHDRAWAL_TIMEOUT_S = 10.0
WITHDRAWAL_BACKOFF = Backoff(1.0)


def dispatch_urls(
    handlers: HandlerRegistry, outbound: OutboundClient, base_url: str | None
) -> dict[str, str]:
    """By external type: the URL that its jobs are sent to. Raises InvalidInput for a bad one."""
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
        outbound.policy.check(url)
    except OutboundRefused as error:
        raise InvalidInput(f"{type} is sent to {url}: {error.message}") from error
    return url


def service_name(url: str) -> str:
    """The actor in the log of the service at *url*."""
    return f"service {URL(url).host}"


class ExternalDispatcher:
    """Sends attempts of external types to their services, and stop requests when they must end."""

    def __init__(
        self,
        jobs: Jobs,
        keys: MasterKey,
        outbound: OutboundClient,
        *,
        urls: Mapping[str, str],
        public_url: str | None,
        silence_s: float,
    ) -> None:
        self._jobs = jobs
        self._keys = keys
        self._outbound = outbound
        self._urls = urls
        self._silence_s = silence_s
        self.address = CallbackAddress(jobs.clock, public_url)
        self._log = get_logger("eventjobs.dispatch")

    def local_handlers(self, handlers: HandlerRegistry) -> list[HandlerRegistry]:
        """The external ones of *handlers* as functions for local runners, grouped by service: a
        service that does not respond must not delay the jobs of another one.
        """
        by_service: dict[tuple[str | None, int | None], list[Handler]] = {}
        for handler in handlers:
            if handler.external is not None:
                url = URL(self._urls[handler.type])
                local = self._local_handler(handler, handler.external)
                by_service.setdefault((url.host, url.port), []).append(local)
        return [HandlerRegistry(group) for group in by_service.values()]

    def _local_handler(self, handler: Handler, service: ExternalService) -> Handler:
        async def perform(context: Context, payload: Any) -> Any:
            return await self._dispatch(context, service.answer_timeout_s)

        return replace(handler, function=perform, mode="loop")

    async def _dispatch(self, context: Context, timeout_s: float) -> Any:
        """The result of the job, or HandedOver. Raises JobError."""
        url = self._urls[context.spec.type]
        address = await self.address.get()
        body = orjson.dumps(self._request_body(context, address))
        name = f"{context.job_id}:{context.attempt}"
        headers = {**self._headers(context.spec.type, name, body), "Idempotency-Key": name}
        try:
            response = await self._outbound.post(
                url,
                body,
                headers,
                timeout_s=timeout_s,
                response_bytes_max=RESPONSE_BYTES_MAX,
            )
        except OutboundRefused as error:
            raise JobError(error.code, error.message, retryable=False) from error
        except OutboundTimeout as error:
            raise JobError("service_timeout", f"the service gave {error.message}") from error
        except OutboundFailed as error:
            raise JobError("service_unreachable", f"the service gave {error.message}") from error
        if response.status == 202:
            return self._handed_over(url, context, response, address)
        return result_of(response)

    def _request_body(self, context: Context, address: str | None) -> dict[str, Any]:
        spec = context.spec
        job_url = None if address is None else f"{address.rstrip('/')}/v1/jobs/{context.job_id}"
        token = self._keys.callback_token(context.job_id, context.attempt)
        artifacts = [
            {
                "name": each.name,
                "sha256": each.sha256,
                "size": each.size,
                "media_type": each.media_type,
                "url": job_url and f"{job_url}/artifacts/{URL.build(path=each.name)}",
            }
            for each in spec.artifacts
        ]
        return {
            "job_id": context.job_id,
            "type": spec.type,
            "attempt": context.attempt,
            "payload": spec.payload,
            "artifacts": artifacts,
            "callback": job_url and {"url": f"{job_url}/callback", "token": token},
        }

    def _headers(self, type: str, message_id: str, body: bytes) -> dict[str, str]:
        secret = self._keys.signing_secret("dispatch", type)
        signed = signature(secret, message_id, body, self._jobs.clock.now_us())
        return {"Content-Type": "application/json", **signed}

    def _handed_over(
        self, url: str, context: Context, response: OutboundResponse, address: str | None
    ) -> HandedOver:
        if address is None:
            raise JobError(
                "service_error",
                "the service wants to call back, and this one listens nowhere",
                retryable=False,
            )
        spec = context.spec
        silence_s = spec.stall_timeout_s or spec.timeout_s or self._silence_s
        return HandedOver(service_name(url), silence_s, self._cancel_url(url, context, response))

    def _cancel_url(self, url: str, context: Context, response: OutboundResponse) -> str | None:
        """The `cancel_url` of the response. None, and a log line, for one that cannot be used: the
        service has the job all the same.
        """
        try:
            relative = AcceptedResponse.model_validate_json(response.body or b"{}").cancel_url
            if relative is None:
                return None
            cancel_url = str(URL(url).join(URL(relative)))
            self._outbound.policy.check(cancel_url)
        except (ValueError, OutboundRefused) as error:  # a ValidationError is a ValueError
            self._log.warning("no cancel_url", job_id=context.job_id, error=type(error).__name__)
            return None
        return cancel_url

    async def withdraw(self, job: Job, reason: str) -> None:
        """Send a stop request to the service of *job*'s attempt, if there is a `cancel_url`.

        A failure is logged.
        """
        url = await self._recorded_cancel_url(job)
        if url is None:
            return
        message = {"job_id": job.job_id, "type": job.spec.type, "attempt": job.attempt}
        body = orjson.dumps({**message, "reason": reason})
        error_text = ""
        for number in range(1, WITHDRAWALS_MAX + 1):
            try:
                message_id = f"{job.job_id}:{job.attempt}:cancel"
                headers = self._headers(job.spec.type, message_id, body)
                response = await self._outbound.post(
                    url, body, headers, timeout_s=WITHDRAWAL_TIMEOUT_S
                )
                if response.status < 500:
                    return
                error_text = str(response.status)
            except OutboundError as error:
                error_text = error.message
            await sleep(self._jobs.clock, WITHDRAWAL_BACKOFF.delay_s(number))
        self._log.warning("stop request failed", job_id=job.job_id, error=error_text)

    async def _recorded_cancel_url(self, job: Job) -> str | None:
        for recorded in await self._jobs.log.read_job(job.job_id):
            event = recorded.event
            if isinstance(event, AttemptHandedOver) and event.attempt == job.attempt:
                return event.cancel_url
        return None
