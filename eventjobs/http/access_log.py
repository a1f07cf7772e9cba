"""A line in the service's log for each request, after its response or stream has ended."""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from eventjobs.http.auth import PRINCIPAL
from eventjobs.http.problem import CODE, encodable
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.request_ids import REQUEST_ID, job_id_of
from eventjobs.http.streams.subscriber import SUBSCRIBER
from eventjobs.observability.logging import StructuredLogger

#: Not there, or no longer: a job that has expired, an address of another version.
MISSING = frozenset({404, 410})


class AccessLog(AbstractAccessLogger):
    """Logs a request that succeeded at DEBUG, or at INFO where *all_requests* is true; a missing
    job, or anything else that is missing, at INFO; another refused request at WARNING; and an
    unexpected error at ERROR.

    A request that is refused because the service is overloaded, or its disk full, is expected:
    what is wrong has a line of its own, and there may be many such requests.

    A line has the path, and never the query, the headers or the body, which may hold secrets. `s`
    is the time in seconds from the request to the last byte of the response; for a long poll or a
    stream, that is how long it was open. `bytes` counts the response with its head. `code` is the
    code of the problem. `client` is the address of the client, as trusted proxies name it.
    """

    def __init__(
        self, logger: StructuredLogger, proxies: TrustedProxies, *, all_requests: bool
    ) -> None:
        super().__init__(logger, "")  # type: ignore[arg-type] # an adapter of a logger
        self._log = logger
        self._proxies = proxies
        self._success = logging.INFO if all_requests else logging.DEBUG

    @property
    def logs_success(self) -> bool:
        """Whether requests that succeed have a line."""
        return self._log.isEnabledFor(self._success)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        status = response.status
        if status < 400:
            if self.logs_success:  # this is on the path of every request
                self._write(self._success, "request", request, response, time)
        elif status == 500:
            self._write(logging.ERROR, "request failed", request, response, time)
        else:
            level = logging.INFO if status in MISSING else logging.WARNING
            self._write(level, "request refused", request, response, time)

    def log_cut_off(self, request: web.BaseRequest, began_s: float) -> None:
        """Log a request whose client disconnected before the end of the response; it began at
        *began_s* of the event loop's time.
        """
        time_s = asyncio.get_running_loop().time() - began_s
        self._write(self._success, "request cut off", request, None, time_s)

    def _write(
        self,
        level: int,
        event: str,
        request: web.BaseRequest,
        response: web.StreamResponse | None,
        time: float,
    ) -> None:
        fields: dict[str, Any] = {"method": request.method}
        fields["path"] = encodable(request.rel_url.raw_path)
        request_id = request.get(REQUEST_ID)
        if (job_id := job_id_of(request)) is not None:
            fields["job"] = encodable(job_id)
        if response is not None:
            fields["status"] = response.status
            if response.status >= 400:
                fields["code"] = response.get(CODE)
            size = response.body_length  # aiohttp includes the head
            if (subscriber := request.get(SUBSCRIBER)) is not None:
                fields["stream"] = True
                size += subscriber.written_bytes  # written to the transport directly
            fields["bytes"] = size
            request_id = request_id or response.headers.get("X-Request-ID")
        fields["s"] = round(time, 6)
        fields["request_id"] = request_id
        if (principal := request.get(PRINCIPAL)) is not None:
            fields["principal"] = principal.name
        fields["client"] = self._proxies.original(request).address
        self._log.log(level, event, **fields)
