"""The sender of webhook deliveries: the handler of delivery jobs, and its runner."""

import random
from typing import Any

from yarl import URL

from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import DELIVERY
from eventjobs.domain.ids import message_id
from eventjobs.domain.limits import RECEIVER
from eventjobs.domain.validation import NAME_CHARS_MAX
from eventjobs.errors import JobError, OutboundFailed, OutboundRefused
from eventjobs.execution.runner import Runner
from eventjobs.execution.source import JobSource
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.outbound.client import OutboundClient
from eventjobs.outbound.signing import signature
from eventjobs.outbound.webhooks.message import message_body
from eventjobs.outbound.webhooks.subscriptions import WebhookSubscriptions

#: Seconds before each further attempt (Standard Webhooks, "Deliverability and reliability").
SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_ATTEMPTS = len(SCHEDULE_S) + 1
TIMEOUT_S = 20.0
#: Deliveries that run at once, to all receivers. For one receiver it is RECEIVER_CONCURRENCY.
DELIVERIES_MAX = 128


class WebhookSender:
    """Runs delivery jobs. Its *runner* is not that of other jobs: neither delays the other."""

    def __init__(
        self,
        jobs: Jobs,
        source: JobSource,
        outbound: OutboundClient,
        subscriptions: WebhookSubscriptions,
    ) -> None:
        self._jobs = jobs
        self._outbound = outbound
        self._subscriptions = subscriptions
        deliver = handler(DELIVERY, max_attempts=MAX_ATTEMPTS)(self._deliver)
        self.runner = Runner(
            source,
            HandlerRegistry([deliver]),
            concurrency=DELIVERIES_MAX,
            threads=0,
            grace_s=1.0,
            progress_interval_s=1.0,
        )

    async def _deliver(self, context: Context, payload: Any) -> dict[str, Any]:
        webhook_id, position = payload["webhook"], payload["position"]
        # From the log: the views may be late.
        subscription, is_active = await self._subscriptions.read(webhook_id)
        if not is_active:
            raise JobError("webhook_removed", "It was removed.", retryable=False)
        [recorded] = await self._jobs.log.read(position - 1, 1)
        job = await self._jobs.load_even_parked(recorded.job_id)
        if subscription.url is None or job is None:
            raise JobError("erased", "What it was about is erased.", retryable=False)
        delivery = await self._jobs.load(context.job_id)
        # A retry by hand starts the schedule anew: it counts tries, not attempts.
        tries = context.attempt if delivery is None else delivery.tries
        body = message_body(recorded, job)
        secret = self._subscriptions.secret(webhook_id)
        now_us = self._jobs.clock.now_us()
        signed = signature(secret, message_id(webhook_id, position), body, now_us)
        headers = {"Content-Type": "application/json", **signed}
        try:
            response = await self._outbound.post(
                subscription.url, body, headers, timeout_s=TIMEOUT_S
            )
        except OutboundRefused as error:
            raise JobError(error.code, error.message, retryable=False) from error
        except OutboundFailed as error:
            raise _retryable_error(tries, error.code, error.message) from error
        if response.status == 410:
            reason = "its address answered 410 Gone"
            await self._subscriptions.remove(webhook_id, reason, actor="webhooks")
            raise JobError("gone", "Answered 410: nobody is there any more.", retryable=False)
        if not 200 <= response.status < 300:  # a redirect is not followed
            raise _retryable_error(tries, "not_accepted", f"Answered {response.status}.")
        return {"status": response.status}


def receiver_key(url: str | None) -> str | None:
    """The concurrency key of deliveries to *url*: its host and port. A receiver that does not
    respond delays only its own deliveries.
    """
    try:
        target = URL(url or "")
        return f"{RECEIVER}{target.host}:{target.port}"[:NAME_CHARS_MAX]
    except ValueError:
        return None


def _retryable_error(tries: int, code: str, message: str) -> JobError:
    delay_s = SCHEDULE_S[min(tries, len(SCHEDULE_S)) - 1] * random.uniform(1.0, 1.1)  # noqa: S311
    return JobError(code, message, retry_after_s=delay_s)
