"""API keys: create, list, revoke."""

from typing import Any

from aiohttp import web

from eventjobs.commands.api_keys import KeyInfo, NewKey
from eventjobs.domain.timestamps import rfc3339
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.json_body import read_json
from eventjobs.http.lists import page
from eventjobs.http.render import time_or_none
from eventjobs.http.requests import views_caught_up
from eventjobs.http.responses import reply


async def create(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Create an API key. Only this answer has its text."""
    service = context.service
    await views_caught_up(service)  # else it waits for their repair to count the keys
    options = dict(await read_json(service, request, NewKey))
    info, text = await service.api_keys.create(**options, actor=principal_of(request).name)
    response = reply(render_key(info) | {"key": text}, status=201)
    response.headers["Cache-Control"] = "no-store"
    return response


async def keys(context: AppContext, request: web.Request) -> web.StreamResponse:
    """The API keys that are not revoked, the oldest first, without their secrets."""
    await views_caught_up(context.service)
    listed = [render_key(each) for each in await context.service.api_keys.all()]
    return page(context, request, "keys", "key_id", listed)


async def revoke(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Revoke an API key: it is refused from now on, and its streams end. Harmless to repeat."""
    actor = principal_of(request).name
    await context.service.api_keys.revoke(request.match_info["key_id"], actor=actor)
    return web.Response(status=204)


def render_key(key: KeyInfo) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "owner": key.owner,
        "scopes": key.scopes,
        "created_at": rfc3339(key.created_us),
        "actor": key.actor,
        "expires_at": time_or_none(key.expires_us),
        "last_used_at": time_or_none(key.last_used_us),
    }
