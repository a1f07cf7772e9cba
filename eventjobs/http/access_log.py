"""A line in the service's log for each request, once its answer is out or its stream has ended."""

import logging
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from eventjobs.http.app_context import REQUEST_ID
from eventjobs.http.problem import CODE, plain
from eventjobs.http.streams.subscriber import SUBSCRIBER

#: Codes above 500 that say what a client asked for: a transfer coding, a version of HTTP.
CLIENTS_FAULT = frozenset({501, 505})


class AccessLog(AbstractAccessLogger):
    """What was served is a DEBUG line, what was refused an INFO, what failed an ERROR.

    A line has the path and never the query, the headers or the body: those hold secrets. Its
    `s` is the time from the request to the last byte of the answer, so of a long poll or a stream
    it is how long that was open. `bytes` are those of the answer with its head, `code` is the
    one of the problem that was answered.
    """

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        status = response.status
        if status < 400 and not self.logger.isEnabledFor(logging.DEBUG):
            return  # this is on the path of every request
        write: Any = self.logger.debug
        event = "request"
        more: dict[str, Any] = {}
        if status >= 400:
            failed = status >= 500 and status not in CLIENTS_FAULT
            write = self.logger.error if failed else self.logger.info
            event = "request failed" if failed else "request refused"
            more["code"] = response.get(CODE)
        size = response.body_length  # for aiohttp that is with the head
        if (subscriber := request.get(SUBSCRIBER)) is not None:
            more["stream"] = True
            size += subscriber.written_bytes  # past the response object
        write(
            event,
            method=request.method,
            path=plain(request.rel_url.raw_path),
            status=status,
            s=round(time, 6),
            bytes=size,
            request_id=request.get(REQUEST_ID) or response.headers.get("X-Request-ID"),
            **more,
        )
