"""Pages of short lists: types, queues, schedules, breakers, webhooks and API keys."""

import base64
import binascii
from typing import Any

import orjson
from aiohttp import web
from pydantic import Field

from eventjobs.http.app_context import AppContext
from eventjobs.http.request_errors import BadCursor
from eventjobs.http.requests import read_query
from eventjobs.http.responses import JSON_HEADERS
from eventjobs.http.schemas.queries import Query

Fields = dict[str, Any]


class ListQuery(Query):
    """Which page of a list."""

    limit: int = Field(1000, ge=1, description="entries of one page; the service has a maximum")
    cursor: str | None = Field(None, description="`next` of the page before")


def page(
    context: AppContext,
    request: web.Request,
    name: str,
    key: str,
    entries: list[Fields],
    **more: Any,
) -> web.Response:
    """The requested page of *entries*, as the field *name*. The field *key* identifies an entry.

    Raises InvalidInput, BadCursor.
    """
    query = read_query(request, ListQuery)
    begin = 0 if query.cursor is None else _after(query.cursor, [each[key] for each in entries])
    end = begin + min(query.limit, context.service.settings.page_max)
    headers = dict(JSON_HEADERS)
    following = None
    if end < len(entries):
        following = base64.urlsafe_b64encode(orjson.dumps(entries[end - 1][key])).decode()
        headers["Link"] = f'<{request.rel_url.update_query(cursor=following)}>; rel="next"'
    body = {name: entries[begin:end], "next": following, **more}
    return web.Response(body=orjson.dumps(body), headers=headers)


def _after(cursor: str, keys: list[Any]) -> int:
    """The index of the first entry after the one of *cursor*, which may be gone by now."""
    try:
        last = orjson.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeEncodeError, orjson.JSONDecodeError) as error:
        raise BadCursor from error
    if last in keys:
        return keys.index(last) + 1
    if not isinstance(last, str):
        raise BadCursor
    return sum(each <= last for each in keys)
