"""Webhook deliveries: follows the log, and submits a delivery job for each event of a subscription.

A delivery is a job, so it is retried, listed, cancelled and explained like any other. Its id is
made from the webhook and the position of the event: an event that is read twice is delivered once.
After a restart the newest delivery of each webhook says where to go on.
"""

import asyncio
from collections.abc import Iterable, Sequence

from eventjobs.clock import sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import DELIVERY, WebhookRemoved
from eventjobs.domain.ids import delivery_id, legacy_delivery_id
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.validation import Redelivery, validate
from eventjobs.domain.webhook import Webhook
from eventjobs.errors import CorruptLog, LogError, Rejected
from eventjobs.observability.logging import get_logger
from eventjobs.outbound.webhooks.sender import MAX_ATTEMPTS, receiver_key
from eventjobs.outbound.webhooks.subscriptions import WebhookSubscriptions

#: Events read, and deliveries submitted, at a time.
BATCH = 256
#: Seconds before deliveries that the log refused are submitted again.
RETRY_DELAY_S = 1.0


class WebhookDeliveries:
    """Submits delivery jobs: *follow* those of new events, *redeliver* those of past ones."""

    def __init__(self, jobs: Jobs, subscriptions: WebhookSubscriptions) -> None:
        self._jobs = jobs
        self._events = jobs.log
        self._subscriptions = subscriptions
        self._log = get_logger("eventjobs.webhooks")

    async def follow(self) -> None:
        """Submit a delivery of every event that a webhook subscribed to, until cancelled."""
        added = self._subscriptions.added
        followed: dict[str, int] = {}  # by webhook: the position up to which events were read
        while True:
            webhooks = [
                _from_position(each, max(each.delivered_position, followed.get(each.webhook_id, 0)))
                for each in await self._subscriptions.all()
            ]
            if not webhooks:
                await added.wait()
                added.clear()
                continue
            added.clear()
            after = min(each.delivered_position for each in webhooks)
            after = await self._follow_from(after, {each.webhook_id: each for each in webhooks})
            # A webhook with few matching events has an old delivered position. When a webhook is
            # added, the events since then are not read again.
            followed = {each.webhook_id: max(each.delivered_position, after) for each in webhooks}

    async def _follow_from(self, after: int, webhooks: dict[str, Webhook]) -> int:
        """Submit deliveries until a webhook is added or none is left. Returns the position of the
        last event that was read.
        """
        while webhooks and not self._subscriptions.added.is_set():
            batch = await self._events.read(after, BATCH)
            if not batch:
                await self._wait_for_event(after)
                continue
            for recorded in batch:
                if isinstance(recorded.event, WebhookRemoved):
                    webhooks.pop(recorded.job_id, None)
            await self._submit_all(await self._matches(batch, webhooks.values()))
            after = batch[-1].position
        return after

    async def _wait_for_event(self, after: int) -> None:
        """Return when there is an event after *after*, or a webhook is added."""
        waits = [
            asyncio.ensure_future(self._events.wait(after)),
            asyncio.ensure_future(self._subscriptions.added.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _matches(
        self, batch: Sequence[Recorded], webhooks: Iterable[Webhook]
    ) -> list[tuple[Webhook, Recorded]]:
        """The events of *batch* that a webhook subscribed to, behind its delivered position."""
        matches = []
        for recorded in batch:
            behind = [each for each in webhooks if recorded.position > each.delivered_position]
            if not behind or (job := await self._job_of(recorded)) is None:
                continue
            if job.spec.type != DELIVERY:  # deliveries of deliveries would never end
                matches += [(each, recorded) for each in behind if each.wants(recorded, job)]
                await asyncio.sleep(0)  # there may be very many webhooks
        return matches

    async def _job_of(self, recorded: Recorded) -> Job | None:
        """None for an event that is about no job, or about one that cannot be read."""
        try:
            return await self._jobs.load_even_parked(recorded.job_id)
        except Exception as error:
            if isinstance(error, LogError) and not isinstance(error, CorruptLog):
                raise  # *follow* is restarted and reads the event again
            position = recorded.position
            self._log.error("event not delivered", position=position, exc_info=error)
            return None

    async def _submit_all(self, matches: Sequence[tuple[Webhook, Recorded]]) -> None:
        """Submit deliveries until the log has accepted all of them."""
        while matches:
            # At most BATCH at a time: one event may match every webhook.
            now, rest = matches[:BATCH], matches[BATCH:]
            outcomes = await asyncio.gather(
                *(self._submit(*match) for match in now), return_exceptions=True
            )
            refused = []
            for (webhook, recorded), outcome in zip(now, outcomes, strict=True):
                if isinstance(outcome, LogError):
                    refused.append((webhook, recorded))
                elif isinstance(outcome, BaseException) and not isinstance(outcome, Rejected):
                    self._log.error(
                        "event not delivered",
                        webhook=webhook.webhook_id,
                        position=recorded.position,
                        exc_info=outcome,
                    )
            # In order: after a crash, deliveries go on behind the newest submitted one.
            matches = [*refused, *rest]
            if refused:
                self._log.warning("deliveries wait", count=len(matches))
                await sleep(self._jobs.clock, RETRY_DELAY_S)

    async def _submit(self, webhook: Webhook, recorded: Recorded, number: int = 0) -> str:
        """The id of the delivery job. *number* counts the deliveries of one event."""
        spec = JobSpec(
            DELIVERY,
            {"webhook": webhook.webhook_id, "position": recorded.position},
            tags=(f"webhook:{webhook.webhook_id}",),
            owner=webhook.owner,
            max_attempts=MAX_ATTEMPTS,
            concurrency_key=receiver_key(webhook.url),
        )
        job_id = delivery_id(webhook.webhook_id, recorded.position, number)
        await self._jobs.submit(spec, actor="webhooks", job_id=job_id)
        return job_id

    async def redeliver(self, webhook_id: str, after: int, limit: int, *, actor: str) -> list[str]:
        """Deliver up to *limit* events after *after* again. Returns the ids of the delivery jobs.

        A queued or running delivery is left alone, and a failed one is queued again. For one that
        completed or has expired a new one is submitted. Raises WebhookNotFound, InvalidInput.
        """
        request = validate(Redelivery, {"after": after, "limit": limit}, "redelivery")
        after, limit = request.after, request.limit
        webhook = _from_position(await self._subscriptions.get(webhook_id), after)
        job_ids: list[str] = []
        head = self._events.head
        while after < head and len(job_ids) < limit:
            batch = await self._events.read(after, BATCH)
            for _, recorded in (await self._matches(batch, [webhook]))[: limit - len(job_ids)]:
                job_ids.append(await self._redeliver(webhook, recorded, actor))
            after = batch[-1].position
        return job_ids

    async def _redeliver(self, webhook: Webhook, recorded: Recorded, actor: str) -> str:
        number = 0
        while True:
            key = (webhook.webhook_id, recorded.position, number)
            job = await self._find(delivery_id(*key)) or await self._find(legacy_delivery_id(*key))
            if job is None:
                return await self._submit(webhook, recorded, number)
            if job.can_retry:
                await self._jobs.retry(job.job_id, "redelivery", actor=actor)
                return job.job_id
            if not job.finished:
                return job.job_id
            number += 1

    async def _find(self, job_id: str) -> Job | None:
        """The delivery job. None also for a client's job: a client can choose a legacy id."""
        job = await self._jobs.current(job_id)
        return job if job is not None and job.spec.type == DELIVERY else None


def _from_position(webhook: Webhook, position: int) -> Webhook:
    return webhook._replace(delivered_position=position)
