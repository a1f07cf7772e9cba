"""Webhooks: whoever subscribed is told of events over HTTP, in Standard Webhooks' form.

A delivery is a job, so it is retried, seen, cancelled and told about like any other. Its id is made
from the webhook and the position of the event: whatever is read twice is sent once. Where to
go on after a restart follows from the deliveries there are; nothing else is kept.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Any

from yarl import URL

from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import DELIVERY, WebhookAdded, WebhookRemoved
from eventjobs.domain.ids import delivery_id, legacy_delivery_id, message_id, new_id, parse_id
from eventjobs.domain.job import Job
from eventjobs.domain.limits import RECEIVER
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.validation import (
    NAME_CHARS_MAX,
    Redelivery,
    Subscription,
    read_reason,
    validate,
)
from eventjobs.domain.webhook import EVENT_TYPES, Webhook
from eventjobs.errors import (
    Conflict,
    CorruptLog,
    InvalidInput,
    JobError,
    LimitReached,
    LogError,
    OutboundFailed,
    OutboundRefused,
    Rejected,
    WebhookNotFound,
)
from eventjobs.execution.runner import Runner
from eventjobs.execution.source import JobSource
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.observability.logging import get_logger
from eventjobs.outbound.client import OutboundClient
from eventjobs.outbound.signing import signature
from eventjobs.outbound.webhooks.message import message_body
from eventjobs.projections import Views
from eventjobs.projections.webhooks import SELECT_WEBHOOKS

#: Seconds before each further attempt (Standard Webhooks, "Deliverability and reliability").
SCHEDULE_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
TIMEOUT_S = 20.0
#: Deliveries on their way into the log at one time.
BATCH = 256
#: Deliveries under way at one time, to all receivers; for each it is RECEIVER_CONCURRENCY.
DELIVERIES_MAX = 128


class Webhooks:
    """Adds and removes subscriptions, and tells each. *follow* and *runner* are to be run."""

    def __init__(
        self,
        jobs: Jobs,
        views: Views,
        desk: JobSource,
        keys: MasterKey,
        outbound: OutboundClient,
        webhooks_max: int,
    ) -> None:
        self._jobs = jobs
        self._events = jobs.log
        self._views = views
        self._keys = keys
        self._outbound = outbound
        self._webhooks_max = webhooks_max
        self._adding = asyncio.Lock()
        self._added = asyncio.Event()
        self._log = get_logger("eventjobs.webhooks")
        deliver = handler(DELIVERY, max_attempts=len(SCHEDULE_S) + 1)(self._deliver)
        #: Beside the runner of everybody's jobs: neither can hold the other up.
        self.runner = Runner(
            desk,
            HandlerRegistry([deliver]),
            concurrency=DELIVERIES_MAX,
            threads=0,
            grace_s=1.0,
            progress_interval_s=1.0,
        )

    # --- subscriptions

    async def add(self, wanted: WebhookAdded, *, actor: str) -> Webhook:
        """Subscribe. Raises OutboundRefused for an address not to be talked to, InvalidInput,
        LimitReached.
        """
        given = validate(
            Subscription,
            {each: getattr(wanted, each, None) for each in Subscription.model_fields},
            "webhook",
        )
        wanted = WebhookAdded(given.events, given.types, given.owner, given.url)
        self._outbound.policy.check(given.url)
        unknown = [each for each in wanted.events if each not in EVENT_TYPES]
        if unknown:
            message = (
                f"there are no events {', '.join(unknown)}; there are {', '.join(EVENT_TYPES)}"
            )
            raise InvalidInput("no such event", [{"field": "events", "message": message}])
        webhook_id = new_id(self._jobs.clock.now_us())
        async with self._adding:  # else many at once would all find room for one
            if len(await self.listed()) >= self._webhooks_max:
                raise LimitReached(f"there are {self._webhooks_max} webhooks, and may be no more")
            recorded = await self._events.append(webhook_id, 0, wanted, actor=actor)
        self._added.set()
        at = recorded.position, recorded.position, recorded.at_us
        about = wanted.url, wanted.events, wanted.types
        return Webhook(webhook_id, *at, actor, *about, owner=wanted.owner)

    async def remove(self, webhook_id: str, reason: str | None, *, actor: str) -> None:
        """Tell it nothing more. Raises WebhookNotFound; a second time nothing happens."""
        reason = read_reason(reason, "reason")
        await self._stream(webhook_id)
        try:
            await self._events.append(webhook_id, 1, WebhookRemoved(reason), actor=actor)
        except Conflict:
            return  # it is removed already

    async def listed(self) -> list[Webhook]:
        await self._views.reached(self._events.head)
        return [Webhook(*row) for row in await self._views.query(SELECT_WEBHOOKS)]

    async def get(self, webhook_id: str) -> Webhook:
        """Raises WebhookNotFound."""
        for each in await self.listed():
            if each.webhook_id == webhook_id:
                return each
        raise WebhookNotFound

    async def _stream(self, webhook_id: str) -> tuple[WebhookAdded, bool]:
        """What was subscribed, and whether it still is, by the log. Raises WebhookNotFound."""
        try:
            events = await self._events.read_job(parse_id(webhook_id))
        except InvalidInput as error:
            raise WebhookNotFound from error
        if not events or not isinstance(added := events[0].event, WebhookAdded):
            raise WebhookNotFound  # also for a job: its events are not for us to add to
        return added, len(events) == 1

    def secret(self, webhook_id: str) -> str:
        """What the receiver checks signatures with."""
        return self._keys.signing_secret("webhook", webhook_id)

    # --- following the log

    async def follow(self) -> None:
        """Make a delivery of every event that somebody wants, for ever."""
        seen: dict[str, int] = {}  # by webhook, up to where its events were looked at
        while True:
            webhooks = [
                each._replace(
                    delivered_position=max(each.delivered_position, seen.get(each.webhook_id, 0))
                )
                for each in await self.listed()
            ]
            if not webhooks:
                await self._added.wait()
                self._added.clear()
                continue
            self._added.clear()
            after = min(each.delivered_position for each in webhooks)
            after = await self._tell_from(after, {each.webhook_id: each for each in webhooks})
            # A webhook that wants little was told little: a new one must not wait for a second look
            # at all that happened since.
            seen = {each.webhook_id: max(each.delivered_position, after) for each in webhooks}

    async def _tell_from(self, after: int, webhooks: dict[str, Webhook]) -> int:
        """Until there is a webhook more, or none is left; the position up to which that is."""
        while webhooks and not self._added.is_set():
            batch = await self._events.read(after, BATCH)
            if not batch:
                await self._more(after)
                continue
            for each in batch:
                if isinstance(each.event, WebhookRemoved):
                    webhooks.pop(each.job_id, None)
            await self._submit(await self._wanted(batch, webhooks.values()))
            after = batch[-1].position
        return after

    async def _more(self, after: int) -> None:
        """Return when there is an event after *after*, or a webhook more."""
        waits = [
            asyncio.ensure_future(self._events.wait(after)),
            asyncio.ensure_future(self._added.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _wanted(
        self, batch: Sequence[Recorded], webhooks: Iterable[Webhook]
    ) -> list[tuple[Webhook, Recorded]]:
        wanted = []
        for recorded in batch:
            late = [each for each in webhooks if recorded.position > each.delivered_position]
            if not late or (job := await self._job_of(recorded)) is None:
                continue
            if job.spec.type != DELIVERY:  # a delivery of a delivery would have one, and so on
                wanted += [(each, recorded) for each in late if each.wants(recorded, job)]
                await asyncio.sleep(0)  # there may be very many webhooks
        return wanted

    async def _job_of(self, recorded: Recorded) -> Job | None:
        """None when the event is not about a job, or about one that cannot be read."""
        try:
            return await self._jobs.load_even_parked(recorded.job_id)
        except Exception as error:
            if isinstance(error, LogError) and not isinstance(error, CorruptLog):
                raise  # it passes, and the events are read again then
            position = recorded.position
            self._log.error("event not delivered", position=position, exc_info=error)
            return None

    async def _submit(self, wanted: Sequence[tuple[Webhook, Recorded]]) -> None:
        """All of them, however long the log takes to accept them."""
        while wanted:
            # In pieces: one event may be for every webhook, and a page of them for all of it.
            piece, rest = wanted[:BATCH], wanted[BATCH:]
            tried = await asyncio.gather(
                *(self._deliver_later(*each) for each in piece), return_exceptions=True
            )
            late = []
            for each, outcome in zip(piece, tried, strict=True):
                if isinstance(outcome, LogError):
                    late.append(each)
                elif isinstance(outcome, BaseException) and not isinstance(outcome, Rejected):
                    self._log.error(
                        "event not delivered",
                        webhook=each[0].webhook_id,
                        position=each[1].position,
                        exc_info=outcome,
                    )
            # The late ones first: where to go on after a crash is the newest that was told.
            wanted = [*late, *rest]
            if late:
                self._log.warning("deliveries wait", count=len(wanted))
                await sleep(self._jobs.clock, 1.0)

    async def _deliver_later(self, webhook: Webhook, recorded: Recorded, again: int = 0) -> None:
        payload = {"webhook": webhook.webhook_id, "position": recorded.position}
        spec = JobSpec(
            DELIVERY,
            payload,
            tags=(f"webhook:{webhook.webhook_id}",),
            owner=webhook.owner,
            max_attempts=len(SCHEDULE_S) + 1,
            concurrency_key=receiver(webhook.url),
        )
        job_id = delivery_id(webhook.webhook_id, recorded.position, again)
        await self._jobs.submit(spec, actor="webhooks", job_id=job_id)

    async def redeliver(self, webhook_id: str, after: int, limit: int, *, actor: str) -> list[str]:
        """Send again what it wants of the events after *after*; the ids of the deliveries.

        One that waits or runs is left alone, one that failed is queued again, and one that was
        received, or is hidden by now, becomes a new one. Raises WebhookNotFound.
        """
        asked = validate(Redelivery, {"after": after, "limit": limit}, "redelivery")
        after, limit = asked.after, asked.limit
        webhook = (await self.get(webhook_id))._replace(delivered_position=after)
        sent: list[str] = []
        head = self._events.head
        while after < head and len(sent) < limit:
            batch = await self._events.read(after, BATCH)
            for _, recorded in (await self._wanted(batch, [webhook]))[: limit - len(sent)]:
                sent.append(await self._again(webhook, recorded, actor))
            after = batch[-1].position
        return sent

    async def _again(self, webhook: Webhook, recorded: Recorded, actor: str) -> str:
        number = 0
        while True:
            named = (webhook.webhook_id, recorded.position, number)
            job = await self._delivery(delivery_id(*named))
            job = job or await self._delivery(legacy_delivery_id(*named))
            if job is None:
                await self._deliver_later(webhook, recorded, number)
                return delivery_id(*named)
            if job.can_retry:
                await self._jobs.retry(job.job_id, "redelivery", actor=actor)
                return job.job_id
            if not job.finished:
                return job.job_id
            number += 1

    async def _delivery(self, job_id: str) -> Job | None:
        """None also for a job of a client, which may have a legacy id."""
        job = await self._jobs.load_newest(job_id)
        return job if job is not None and job.spec.type == DELIVERY else None

    # --- one delivery

    async def _deliver(self, ctx: Context, payload: Any) -> dict[str, Any]:
        webhook_id, position = payload["webhook"], payload["position"]
        # From its own events: the views may be late, and have all the others, too.
        wanted, stays = await self._stream(webhook_id)
        if not stays:
            raise JobError("webhook_removed", "It was removed.", retryable=False)
        [recorded] = await self._events.read(position - 1, 1)
        job = await self._jobs.load_even_parked(recorded.job_id)
        if wanted.url is None or job is None:
            raise JobError("erased", "What it was about is erased.", retryable=False)
        itself = await self._jobs.load(ctx.job_id)
        tries = itself.tries if itself is not None else ctx.attempt  # by hand begins them anew
        body = message_body(recorded, job)
        now_us = self._jobs.clock.now_us()
        secret, name = self.secret(webhook_id), message_id(webhook_id, position)
        signed = signature(secret, name, body, now_us)
        try:
            answer = await self._outbound.post(
                wanted.url,
                body,
                {"Content-Type": "application/json", **signed},
                timeout_s=TIMEOUT_S,
            )
        except OutboundRefused as error:
            raise JobError(error.code, error.message, retryable=False) from error
        except OutboundFailed as error:
            raise _later(tries, error.code, error.message) from error
        if answer.status == 410:
            await self.remove(webhook_id, "its address answered 410 Gone", actor="webhooks")
            raise JobError("gone", "Answered 410: nobody is there any more.", retryable=False)
        if not 200 <= answer.status < 300:  # a redirect is one, too: it is not followed
            raise _later(tries, "not_accepted", f"Answered {answer.status}.")
        return {"status": answer.status}


def receiver(url: str | None) -> str | None:
    """The concurrency key of deliveries to *url*: one that does not answer keeps places from
    itself alone. Webhooks with the same host and port have one receiver.
    """
    try:
        at = URL(url or "")
        return f"{RECEIVER}{at.host}:{at.port}"[:NAME_CHARS_MAX]
    except ValueError:
        return None


def _later(tries: int, code: str, text: str) -> JobError:
    delay_s = SCHEDULE_S[min(tries, len(SCHEDULE_S)) - 1] * random.uniform(1.0, 1.1)  # noqa: S311
    return JobError(code, text, retry_after_s=delay_s)
