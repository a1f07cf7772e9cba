"""Requests to one service: repeated where that is harmless, and streams that are resumed."""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from io import BytesIO
from types import MappingProxyType
from typing import Any

import aiohttp
import orjson
from yarl import URL

from eventjobs.backoff import POSITIVE_JITTER, Backoff
from eventjobs.client.errors import ApiError, ConnectionLost, Unreachable, WrongAddress
from eventjobs.client.requests import JSONObject, encode_json
from eventjobs.client.sse import EventSource, Message, StreamBroken
from eventjobs.clock import Clock, sleep

#: How often a request that was not served is repeated, and the delays before.
RETRIES_MAX = 4
REQUEST_BACKOFF = Backoff(0.25, jitter=POSITIVE_JITTER)
#: Statuses of a request that was not served and may be repeated (RFC 9110, 15.6.4; RFC 6585, 4).
RETRYABLE_STATUSES = frozenset({429, 503})
#: Statuses after which a stream that was open before is resumed.
RESUMABLE_STATUSES = frozenset({429, 500, 502, 503, 504})

#: Bytes from which a body is sent in parts.
LARGE_BYTES = 2**20

REQUEST = aiohttp.ClientTimeout(total=60, sock_connect=10)
TRANSFER = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class Connection:
    """One service at *url*, over *session*. Every request has *headers*.

    A stream without a byte for *silence_s* counts as broken; *on_connection_lost* is called with
    the seconds until it is resumed.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        clock: Clock,
        silence_s: float,
        on_connection_lost: Callable[[float], object],
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._session = session
        self._headers = headers
        self._url = url
        self._clock = clock
        self._stream_timeout = aiohttp.ClientTimeout(sock_connect=10, sock_read=silence_s)
        self._on_connection_lost = on_connection_lost
        #: Whether eventjobs has answered at this address.
        self.is_confirmed = False

    async def call(
        self,
        method: str,
        path: str,
        *,
        retry: bool = True,
        json: JSONObject | None = None,
        data: Callable[[], Any] = lambda: None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> JSONObject:
        """The response's JSON. Raises ApiError, Unreachable, InvalidInput.

        The body is *json*, or what *data* returns, which is called for each attempt. With *retry*,
        a request that was not served is repeated a few times, and one whose response was lost.
        """
        options["headers"] = dict(headers or {})
        if json is not None:
            body = encode_json(json)
            # aiohttp writes a file in parts, and other tasks run between them.
            data = lambda: body if len(body) < LARGE_BYTES else BytesIO(body)  # noqa: E731
            options["headers"]["Content-Type"] = "application/json"
        for number in range(RETRIES_MAX + 1):
            delay_s = REQUEST_BACKOFF.delay_s(number + 1)
            try:
                async with self.request(method, path, data=data(), **options) as response:
                    text = await response.read()
                    with suppress(orjson.JSONDecodeError):
                        if isinstance(payload := orjson.loads(text or b"{}"), dict):
                            return payload
                    raise self.wrong_address(response)
            except ApiError as error:
                harmless = retry or error.code == "overloaded"
                retryable = error.status in RETRYABLE_STATUSES and harmless
                if not retryable or number == RETRIES_MAX:
                    raise
                delay_s = max(delay_s, error.retry_after_s or 0.0)
            except ConnectionLost:
                if not retry or number == RETRIES_MAX:
                    raise
            await sleep(self._clock, delay_s)
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def request(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to one attempt. Raises ApiError, Unreachable.

        Raises WrongAddress for a redirect and for what does not speak HTTP.
        """
        options["headers"] = {**options.get("headers", {}), **self._headers}
        try:
            url = URL(self._url + path, encoded=True)
            # The token is for this service, and for no address that it or another one names.
            async with self._session.request(
                method, url, allow_redirects=False, **options
            ) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise await self._api_error(response)
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise self.wrong_address(response)
                self.is_confirmed = self.is_confirmed or "X-Request-ID" in response.headers
                yield response
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except aiohttp.ClientResponseError as error:
            raise WrongAddress(f"what answers at {self._url} does not speak HTTP") from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if not self.is_confirmed and await _speaks_tls(self._url):
                other = self._url.replace("http:", "https:", 1)
                raise WrongAddress(f"{self._url} speaks TLS: its address is {other}") from error
            why = str(error) or type(error).__name__
            raise ConnectionLost(f"{self._url} broke off: {why}") from error

    def _unreachable(self, error: aiohttp.ClientConnectorError) -> Unreachable:
        if isinstance(error, aiohttp.ClientSSLError):
            return WrongAddress(f"{self._url} cannot be spoken to with TLS: {error.os_error}")
        number = error.os_error.errno
        why = os.strerror(number) if number is not None and number > 0 else error.os_error
        return Unreachable(f"{self._url} cannot be reached: {why}")

    def wrong_address(self, response: aiohttp.ClientResponse | None = None) -> WrongAddress:
        """The error for a response that is not one of eventjobs."""
        if response is not None and (to := response.headers.get("Location")) is not None:
            return WrongAddress(f"{self._url} sends us to {to}; give the address of the service")
        kind = "JSON" if response is None else response.content_type
        return WrongAddress(f"what answers at {self._url}, with {kind}, is not eventjobs")

    async def _api_error(self, response: aiohttp.ClientResponse) -> ApiError:
        try:
            problem = orjson.loads(await response.read())
        except orjson.JSONDecodeError:
            problem = None
        if isinstance(problem, dict) and "code" in problem:
            self.is_confirmed = True
        else:
            problem = self._foreign_problem(response)
        after = response.headers.get("Retry-After", "")
        return ApiError(
            response.status,
            problem["code"],
            problem.get("detail") or response.reason or "the service refused",
            problem.get("errors"),
            request_id=problem.get("request_id"),
            retry_after_s=float(after) if after.isascii() and after.isdigit() else None,
        )

    def _foreign_problem(self, response: aiohttp.ClientResponse) -> JSONObject:
        """The problem for a refusal that is not one of eventjobs."""
        hint = "" if self.is_confirmed or response.status >= 500 else "; is this its address?"
        answer = f"answered {response.status} {response.reason}, not as eventjobs does"
        return {"code": f"http_{response.status}", "detail": f"{self._url} {answer}{hint}"}

    async def messages(
        self, path: str, params: dict[str, str], after: int
    ) -> AsyncGenerator[Message, None]:
        """A stream's messages, each once, until the service ends the stream.

        The stream is resumed when it breaks. Raises Unreachable if it was never open.
        """
        connected = False

        @asynccontextmanager
        async def connect(last_id: str) -> AsyncIterator[aiohttp.ClientResponse]:
            nonlocal connected
            headers = {"Accept": "text/event-stream"}
            if last_id:
                headers["Last-Event-ID"] = last_id
            options: dict[str, Any] = {"params": params, "headers": headers}
            try:
                async with self.request(
                    "GET", path, timeout=self._stream_timeout, **options
                ) as response:
                    _check_stream(response)
                    connected = True
                    yield response
            except ApiError as error:
                if error.status not in (RESUMABLE_STATUSES if connected else RETRYABLE_STATUSES):
                    raise
                raise StreamBroken from error
            except Unreachable as error:
                # An address that never answered may be wrong: waiting could last for ever.
                if not connected:
                    raise
                raise StreamBroken from error

        source = EventSource(connect, str(after or ""), self._clock, self._on_connection_lost)
        async with aclosing(source.messages()) as messages:
            async for message in messages:
                yield message


def _check_stream(response: aiohttp.ClientResponse) -> None:
    if response.status == HTTPStatus.NO_CONTENT:
        return
    if response.status != HTTPStatus.OK or response.content_type != "text/event-stream":
        raise ApiError(response.status, "not_a_stream", f"{response.url} sent no event stream")


async def _speaks_tls(url: str) -> bool:
    """Whether an http address speaks TLS. The certificate is not checked."""
    at = URL(url)
    if at.scheme != "http":
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(at.host, at.port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
