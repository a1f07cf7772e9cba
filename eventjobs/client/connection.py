"""The client's side of HTTP: requests that are sent again where that is harmless, and streams."""

import asyncio
import os
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any

import aiohttp
import orjson
from yarl import URL

from eventjobs.client.sse import Broken, EventSource, Message
from eventjobs.clock import Clock, sleep
from eventjobs.errors import EventjobsError, InvalidInput

#: Times a request is sent again when it was not served and repeating it is harmless.
AGAIN_MAX = 4
AGAIN_S = 0.25
#: Answers that are about this moment and not about the request: nothing was done.
UNSERVED = frozenset({429, 503})
#: And those that a stream which was there before may outlive.
TEMPORARY = frozenset({429, 500, 502, 503, 504})

LARGE_BYTES = 2**20

REQUEST = aiohttp.ClientTimeout(total=60, sock_connect=10)
TRANSFER = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class ApiError(EventjobsError):
    """The service refused the request."""

    code: str  # type: ignore[misc]  # the service's, so each has its own

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: list[dict[str, str]] | None = None,
        *,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def is_final(self) -> bool:
        """Whether the same request will not be served later either."""
        passes = self.status == HTTPStatus.TOO_MANY_REQUESTS or self.status >= 500
        return not passes or self.code == "artifact_damaged"

    @classmethod
    def of(cls, told: dict[str, Any]) -> "ApiError":
        """As it is told within an answer."""
        return cls(told["status"], told["code"], told["detail"], told.get("errors"))


class Unreachable(EventjobsError):
    """The service cannot be reached."""

    code = "unreachable"


class ConnectionLost(Unreachable):
    """The connection broke before the answer was whole."""

    code = "connection_lost"


class WrongAddress(Unreachable):
    """Something else than eventjobs answers at this address."""

    code = "wrong_address"


class Connection:
    """One service at *url*, over *session*."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        clock: Clock,
        silence_s: float,
        lost: Callable[[float], object],
    ) -> None:
        self._session = session
        self._url = url
        self._clock = clock
        self._stream = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence_s)
        self._lost = lost
        #: Whether eventjobs has answered, so that this is its address.
        self.known = False

    async def call(
        self,
        method: str,
        path: str,
        *,
        again: bool = True,
        json: dict[str, Any] | None = None,
        data: Callable[[], Any] = lambda: None,
        headers: dict[str, str] | None = None,
        **sent: Any,
    ) -> dict[str, Any]:
        """The answer. What was not served is sent again, unless (*again*) that could do harm.

        Sent is *json*, or what *data* returns, which is called for each attempt.
        """
        sent["headers"] = dict(headers or {})
        if json is not None:
            body = dumped(json)
            # A large one as a file: aiohttp gives the loop a turn between its parts.
            data = lambda: body if len(body) < LARGE_BYTES else BytesIO(body)  # noqa: E731
            sent["headers"]["Content-Type"] = "application/json"
        for number in range(AGAIN_MAX + 1):
            delay_s = AGAIN_S * 2**number * random.uniform(1, 1.5)  # noqa: S311
            try:
                async with self.request(method, path, data=data(), **sent) as response:
                    read = await response.read()
                    with suppress(orjson.JSONDecodeError):
                        if isinstance(answer := orjson.loads(read or b"{}"), dict):
                            return answer
                    raise self.wrong(response)
            except ApiError as problem:
                harmless = again or problem.code == "overloaded"
                if problem.status not in UNSERVED or not harmless or number == AGAIN_MAX:
                    raise
                delay_s = max(delay_s, problem.retry_after_s or 0.0)
            except ConnectionLost:
                if not again or number == AGAIN_MAX:
                    raise
            await sleep(self._clock, delay_s)
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def request(
        self, method: str, path: str, **sent: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Raises Problem, Unreachable; WrongAddress for what eventjobs would not answer."""
        try:
            url = URL(self._url + path, encoded=True)
            sent.setdefault("allow_redirects", False)
            async with self._session.request(method, url, **sent) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise await self._problem(response)
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise self.wrong(response)
                self.known = self.known or "X-Request-ID" in response.headers
                yield response
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except aiohttp.ClientResponseError as error:
            raise WrongAddress(f"what answers at {self._url} does not speak HTTP") from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if not self.known and await _speaks_tls(self._url):
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

    def wrong(self, response: aiohttp.ClientResponse | None = None) -> WrongAddress:
        """What to say of an answer that eventjobs would not give."""
        if response is not None and (to := response.headers.get("Location")) is not None:
            return WrongAddress(f"{self._url} sends us to {to}; give the address of the service")
        kind = "JSON" if response is None else response.content_type
        return WrongAddress(f"what answers at {self._url}, with {kind}, is not eventjobs")

    async def _problem(self, response: aiohttp.ClientResponse) -> ApiError:
        try:
            told = orjson.loads(await response.read())
        except orjson.JSONDecodeError:
            told = None
        ours = isinstance(told, dict) and "code" in told
        self.known = self.known or ours
        if not ours:
            more = "" if self.known or response.status >= 500 else "; is this its address?"
            said = f"answered {response.status} {response.reason}, not as eventjobs does"
            told = {"code": f"http_{response.status}", "detail": f"{self._url} {said}{more}"}
        after = response.headers.get("Retry-After", "")
        return ApiError(
            response.status,
            told["code"],
            told.get("detail") or response.reason or "the service refused",
            told.get("errors"),
            request_id=told.get("request_id"),
            retry_after_s=float(after) if after.isascii() and after.isdigit() else None,
        )

    async def messages(
        self, path: str, params: dict[str, str], after: int
    ) -> AsyncGenerator[Message, None]:
        """A stream's messages, none missing and none twice, until the service ends it."""
        connected = False

        @asynccontextmanager
        async def connect(last_id: str) -> AsyncIterator[aiohttp.ClientResponse]:
            nonlocal connected
            headers = {"Accept": "text/event-stream"}
            if last_id:
                headers["Last-Event-ID"] = last_id
            sent: dict[str, Any] = {"params": params, "headers": headers, "timeout": self._stream}
            try:
                async with self.request("GET", path, **sent) as response:
                    _check_stream(response)
                    connected = True
                    yield response
            except ApiError as problem:
                if problem.status not in (TEMPORARY if connected else UNSERVED):
                    raise
                raise Broken from problem
            except Unreachable as error:
                # Where there was never anything, waiting would be for ever.
                if not connected:
                    raise
                raise Broken from error

        source = EventSource(connect, str(after or ""), self._clock, self._lost)
        async with aclosing(source.messages()) as messages:
            async for message in messages:
                yield message


def address(url: str) -> str:
    """*url* in the form that paths are added to. Raises InvalidInput."""
    try:
        parsed = URL(url)
    except ValueError as error:
        raise InvalidInput(f"{url} is not an address: {error}") from error
    if parsed.scheme not in ("http", "https") or parsed.host is None:
        raise InvalidInput(f"{url} is not an address like http://127.0.0.1:8080")
    return str(parsed).rstrip("/")


def dumped(json: dict[str, Any]) -> bytes:
    """As it is sent. Raises InvalidInput."""
    try:
        return orjson.dumps(json)
    except TypeError as error:
        raise InvalidInput(f"this cannot be sent as JSON: {error}") from error


def _check_stream(response: aiohttp.ClientResponse) -> None:
    if response.status == HTTPStatus.NO_CONTENT:
        return
    if response.status != HTTPStatus.OK or response.content_type != "text/event-stream":
        raise ApiError(response.status, "not_a_stream", f"{response.url} sent no event stream")


async def _speaks_tls(url: str) -> bool:
    """Whether TLS is spoken at an http address, whoever its certificate is for."""
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
