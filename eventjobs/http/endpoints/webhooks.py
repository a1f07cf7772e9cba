"""Webhooks: addresses that events are sent to. Each delivery is a job."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from eventjobs.auth.policy import Action, JobFacts, permits
from eventjobs.domain.events import DELIVERY, WebhookAdded
from eventjobs.domain.ids import parse_id
from eventjobs.domain.timestamps import rfc3339
from eventjobs.domain.validation import Redelivery, Subscription
from eventjobs.domain.webhook import Webhook
from eventjobs.errors import InvalidInput, WebhookNotFound
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of, restrict_owner
from eventjobs.http.json_body import read_json
from eventjobs.http.lists import page
from eventjobs.http.requests import views_caught_up
from eventjobs.http.responses import reply


async def add(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Have events sent to an address from now on. The answer has the secret that signs messages."""
    body = await read_json(context.service, request, Subscription)
    principal = principal_of(request)
    owner = restrict_owner(principal, body.owner, Action.SUBSCRIBE)
    added = WebhookAdded(body.events, body.types, owner, body.url)
    webhook = await context.service.webhooks.add(added, actor=principal.name)
    secret = context.service.webhooks.secret(webhook.webhook_id)
    response = reply(_render(webhook) | {"secret": secret}, status=201)
    response.headers["Location"] = f"/v1/webhooks/{webhook.webhook_id}"
    return response


async def webhooks(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The webhooks for your jobs, the oldest first."""
    await views_caught_up(context.service)
    principal = principal_of(request)
    listed = [
        _render(each)
        for each in await context.service.webhooks.all()
        if permits(principal, Action.LIST, JobFacts(each.owner))
    ]
    return page(context, request, "webhooks", "webhook_id", listed)


async def webhook(context: AppContext, request: web.Request) -> web.StreamResponse:
    """One webhook."""
    await views_caught_up(context.service)
    webhook = await context.service.webhooks.get(_id(request))
    _check_permission(request, Action.LIST, webhook.owner)
    return reply(_render(webhook))


async def remove(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Send nothing more to this webhook. Harmless to repeat."""
    webhook_id = _id(request)
    added, _ = await context.service.webhooks.read(webhook_id)
    _check_permission(request, Action.SUBSCRIBE, added.owner)
    actor = principal_of(request).name
    await context.service.webhooks.remove(webhook_id, None, actor=actor)
    return web.Response(status=204)


async def redeliver(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Send events again, from any position on, also from before the webhook was added."""
    body = await read_json(context.service, request, Redelivery)
    await views_caught_up(context.service)
    webhook = await context.service.webhooks.get(_id(request))
    _check_permission(request, Action.SUBSCRIBE, webhook.owner)
    job_ids = await context.service.deliveries.redeliver(
        webhook.webhook_id, body.after, body.limit, actor=principal_of(request).name
    )
    return reply({"deliveries": job_ids}, status=202)


def _check_permission(request: web.Request, action: Action, owner: str | None) -> None:
    """Raises WebhookNotFound for a webhook that the principal may not use."""
    if not permits(principal_of(request), action, JobFacts(owner)):
        raise WebhookNotFound


def _id(request: web.Request) -> str:
    """The webhook id in the path. Raises WebhookNotFound."""
    try:
        return parse_id(request.match_info["webhook_id"])
    except InvalidInput as error:
        raise WebhookNotFound from error


def _render(webhook: Webhook) -> dict[str, Any]:
    here = f"/v1/webhooks/{webhook.webhook_id}"
    tag = quote(f"webhook:{webhook.webhook_id}")
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "events": webhook.events,
        "types": webhook.types,
        "owner": webhook.owner,
        "added_at": rfc3339(webhook.added_us),
        "actor": webhook.actor,
        "position": webhook.position,
        "told": webhook.delivered_position,
        "links": {
            "self": here,
            "deliveries": f"/v1/jobs?type={DELIVERY}&tag={tag}",
            "redeliver": f"{here}/redeliver",
        },
    }
