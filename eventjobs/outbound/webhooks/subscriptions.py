"""Webhook subscriptions: added and removed by events in the log, listed from the views."""

import asyncio

from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import Clock
from eventjobs.domain.events import WebhookAdded, WebhookRemoved
from eventjobs.domain.ids import new_id, parse_id
from eventjobs.domain.validation import Subscription, read_reason, validate
from eventjobs.domain.webhook import EVENT_TYPES, Webhook
from eventjobs.errors import Conflict, InvalidInput, LimitReached, WebhookNotFound
from eventjobs.log import EventLog
from eventjobs.outbound.address_policy import AddressPolicy
from eventjobs.projections import Views
from eventjobs.projections.webhooks import SELECT_WEBHOOKS


class WebhookSubscriptions:
    """Adds, removes and lists webhooks, at most *webhooks_max* at a time."""

    def __init__(
        self,
        log: EventLog,
        views: Views,
        clock: Clock,
        keys: MasterKey,
        policy: AddressPolicy,
        webhooks_max: int,
    ) -> None:
        self._log = log
        self._views = views
        self._clock = clock
        self._keys = keys
        self._policy = policy
        self._webhooks_max = webhooks_max
        self._adding = asyncio.Lock()
        #: Set when a webhook is added.
        self.added = asyncio.Event()

    async def add(self, subscription: WebhookAdded, *, actor: str) -> Webhook:
        """The new webhook. Raises OutboundRefused for an address that is not allowed, InvalidInput,
        LimitReached.
        """
        fields = {name: getattr(subscription, name, None) for name in Subscription.model_fields}
        valid = validate(Subscription, fields, "webhook")
        event = WebhookAdded(valid.events, valid.types, valid.owner, valid.url)
        self._policy.check(valid.url)
        unknown = [name for name in event.events if name not in EVENT_TYPES]
        if unknown:
            names = ", ".join(EVENT_TYPES)
            message = f"there are no events {', '.join(unknown)}; there are {names}"
            raise InvalidInput("no such event", [{"field": "events", "message": message}])
        webhook_id = new_id(self._clock.now_us())
        async with self._adding:  # else concurrent calls would exceed the limit
            if len(await self.all()) >= self._webhooks_max:
                raise LimitReached(f"there are {self._webhooks_max} webhooks, and may be no more")
            recorded = await self._log.append(webhook_id, 0, event, actor=actor)
        self.added.set()
        return Webhook(
            webhook_id,
            position=recorded.position,
            delivered_position=recorded.position,
            added_us=recorded.at_us,
            actor=actor,
            url=event.url,
            events=event.events,
            types=event.types,
            owner=event.owner,
        )

    async def remove(self, webhook_id: str, reason: str | None, *, actor: str) -> None:
        """End the subscription. Raises WebhookNotFound. Idempotent."""
        reason = read_reason(reason, "reason")
        await self.read(webhook_id)
        try:
            await self._log.append(webhook_id, 1, WebhookRemoved(reason), actor=actor)
        except Conflict:
            return  # it is removed already

    async def all(self) -> list[Webhook]:
        await self._views.wait_for_position(self._log.head)
        return [Webhook(*row) for row in await self._views.query(SELECT_WEBHOOKS)]

    async def get(self, webhook_id: str) -> Webhook:
        """Raises WebhookNotFound."""
        for webhook in await self.all():
            if webhook.webhook_id == webhook_id:
                return webhook
        raise WebhookNotFound

    async def read(self, webhook_id: str) -> tuple[WebhookAdded, bool]:
        """The subscription by the log, and whether it is active. Raises WebhookNotFound.

        The log is up to date, and reading one webhook's events costs less than listing all.
        """
        try:
            events = await self._log.read_job(parse_id(webhook_id))
        except InvalidInput as error:
            raise WebhookNotFound from error
        if not events or not isinstance(added := events[0].event, WebhookAdded):
            raise WebhookNotFound  # also for the id of a job
        return added, len(events) == 1

    def secret(self, webhook_id: str) -> str:
        """The secret with which the receiver verifies signatures."""
        return self._keys.signing_secret("webhook", webhook_id)
