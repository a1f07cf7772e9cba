"""Webhooks over HTTP: who is to be told of what. Their deliveries are jobs like any other."""

from typing import Any
from urllib.parse import quote

from aiohttp import web

from eventjobs.domain.events import DELIVERY, WebhookAdded
from eventjobs.domain.ids import parse_id
from eventjobs.domain.timestamps import rfc3339
from eventjobs.domain.validation import Redelivery, Subscription
from eventjobs.domain.webhook import Webhook
from eventjobs.errors import InvalidInput, WebhookNotFound
from eventjobs.http.app_context import AppContext
from eventjobs.http.lists import page
from eventjobs.http.request_body import read_json
from eventjobs.http.requests import ACTOR, views_caught_up
from eventjobs.http.responses import reply


async def add(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Be told of events from now on. The answer has the secret that messages are signed with."""
    given = await read_json(site.service, request, Subscription)
    wanted = WebhookAdded(given.events, given.types, given.owner, given.url)
    webhook = await site.service.webhooks.add(wanted, actor=ACTOR)
    secret = site.service.webhooks.secret(webhook.webhook_id)
    answer = reply(_told(webhook) | {"secret": secret}, status=201)
    answer.headers["Location"] = f"/v1/webhooks/{webhook.webhook_id}"
    return answer


async def webhooks(site: AppContext, request: web.Request) -> web.StreamResponse:
    """All of them, the oldest first."""
    await views_caught_up(site.service)
    listed = [_told(each) for each in await site.service.webhooks.listed()]
    return page(site, request, "webhooks", "webhook_id", listed)


async def webhook(site: AppContext, request: web.Request) -> web.StreamResponse:
    """One of them."""
    await views_caught_up(site.service)
    return reply(_told(await site.service.webhooks.get(_id(request))))


async def remove(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Tell it nothing more. Harmless to repeat."""
    await site.service.webhooks.remove(_id(request), None, actor=ACTOR)
    return web.Response(status=204)


async def redeliver(site: AppContext, request: web.Request) -> web.StreamResponse:
    """Send messages again, from any position on: also those of before there was the webhook."""
    given = await read_json(site.service, request, Redelivery)
    await views_caught_up(site.service)
    sent = await site.service.webhooks.redeliver(
        _id(request), given.after, given.limit, actor=ACTOR
    )
    return reply({"deliveries": sent}, status=202)


def _id(request: web.Request) -> str:
    """Raises WebhookNotFound."""
    try:
        return parse_id(request.match_info["webhook_id"])
    except InvalidInput as error:
        raise WebhookNotFound from error


def _told(webhook: Webhook) -> dict[str, Any]:
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
