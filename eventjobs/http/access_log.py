"""A line in the service's log for each request, after its response or stream has ended."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from eventjobs.http.auth import PRINCIPAL
from eventjobs.http.problem import CODE, encodable
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.request_ids import REQUEST_ID, job_id_of
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

    def end_of_stream(
        self, request: web.BaseRequest, response: web.StreamResponse, began_s: float
    ) -> Callable[[int], None] | None:
        """Logs a stream that began at *began_s* of the event loop's time, when it is called at the
        end with the bytes that were written after the head. None: it has no line.
        """
        if not self.logs_success:
            return None
        # Only the fields are kept, and not the request.
        fields = self._fields(request, response)
        head_bytes, now_s = request.writer.output_size, asyncio.get_running_loop().time

        def log_end(written_bytes: int) -> None:
            fields["stream"] = True
            fields["bytes"] = head_bytes + written_bytes
            fields["s"] = round(now_s() - began_s, 6)
            self._log.log(self._success, "request", **fields)

        return log_end

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
        fields = self._fields(request, response)
        if response is not None:
            fields["bytes"] = response.body_length  # aiohttp includes the head
        self._log.log(level, event, **fields, s=round(time, 6))

    def _fields(
        self, request: web.BaseRequest, response: web.StreamResponse | None
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {"method": request.method}
        fields["path"] = encodable(request.rel_url.raw_path)
        request_id = request.get(REQUEST_ID)
        if (job_id := job_id_of(request)) is not None:
            fields["job"] = encodable(job_id)
        if response is not None:
            fields["status"] = response.status
            if response.status >= 400:
                fields["code"] = response.get(CODE)
            request_id = request_id or response.headers.get("X-Request-ID")
        fields["request_id"] = request_id
        if (principal := request.get(PRINCIPAL)) is not None:
            fields["principal"] = principal.name
        fields["client"] = self._proxies.original(request).address
        return fields
