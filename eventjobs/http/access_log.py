"""A line in the service's log for each request, after its response or stream has ended."""

import logging
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from eventjobs.http.problem import CODE, encodable
from eventjobs.http.request_ids import REQUEST_ID
from eventjobs.http.streams.subscriber import SUBSCRIBER

#: Statuses above 500 that are errors of the request: transfer coding, version of HTTP.
CLIENT_ERRORS = frozenset({501, 505})


class AccessLog(AbstractAccessLogger):
    """Logs a success as DEBUG, a refused request as INFO, and a failure as ERROR.

    A line has the path, and never the query, the headers or the body, which may hold secrets. `s`
    is the time in seconds from the request to the last byte of the response; for a long poll or a
    stream, that is how long it was open. `bytes` counts the response with its head. `code` is the
    code of the problem.
    """

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        status = response.status
        if status < 400 and not self.logger.isEnabledFor(logging.DEBUG):
            return  # on the path of every request
        write: Any = self.logger.debug
        event = "request"
        more: dict[str, Any] = {}
        if status >= 400:
            failed = status >= 500 and status not in CLIENT_ERRORS
            write = self.logger.error if failed else self.logger.info
            event = "request failed" if failed else "request refused"
            more["code"] = response.get(CODE)
        size = response.body_length  # aiohttp includes the head
        if (subscriber := request.get(SUBSCRIBER)) is not None:
            more["stream"] = True
            size += subscriber.written_bytes  # written to the transport directly
        write(
            event,
            method=request.method,
            path=encodable(request.rel_url.raw_path),
            status=status,
            s=round(time, 6),
            bytes=size,
            request_id=request.get(REQUEST_ID) or response.headers.get("X-Request-ID"),
            **more,
        )
