"""Ids of requests, in responses and log lines."""

import os
import re
from itertools import count

from aiohttp import web

#: The id of a request, and the id of the job that it submits.
REQUEST_ID = web.RequestKey("request_id", str)
JOB_ID = web.RequestKey("job_id", str)

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def job_id_of(request: web.BaseRequest) -> str | None:
    """The id of the job that *request* submits or has in its path, where it may be malformed."""
    if (job_id := request.get(JOB_ID)) is not None:
        return str(job_id)
    if isinstance(request, web.Request) and REQUEST_ID in request:  # it has a route
        return request.match_info.get("id")
    return None


class RequestIds:
    """Ids of requests: the client's X-Request-ID, or a random prefix and a counter."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)

    def of(self, request: web.BaseRequest) -> str:
        requested = request.headers.get("X-Request-ID")
        if requested is not None and _ACCEPTED_ID.fullmatch(requested):
            return requested
        return self.new()

    def new(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"
