"""Services with a fault each, which the campaign must find."""

from collections.abc import Callable

from aiohttp import web

from eventjobs.domain.recorded import Recorded
from eventjobs.handlers.registry import Handler
from eventjobs.http import protocol, server
from eventjobs.http.protocol import ServerConnection
from eventjobs.http.request_ids import RequestIds
from eventjobs.http.streams import broadcast, catch_up, frames

from .handlers import HANDLERS


def __getattr__(name: str) -> list[Handler]:
    """The handlers; this process from now on has the fault *name*."""
    if name not in SABOTAGE:
        raise AttributeError(name)
    SABOTAGE[name]()
    return HANDLERS


def _keeps_requests() -> None:
    """What was received stays in memory."""
    kept: list[bytes] = []
    original = ServerConnection.data_received

    def keep(connection: ServerConnection, data: bytes) -> None:
        kept.append(data)
        original(connection, data)

    setattr(ServerConnection, "data_received", keep)  # noqa: B010 mypy knows its type


def _continues_after_upgrades() -> None:
    """The bytes after an upgrade or a CONNECT are further requests."""
    for module in (protocol, server):
        setattr(module, "asks_for_upgrade", lambda _: False)  # noqa: B010 mypy knows its type


def _echoes_request_ids() -> None:
    """The id of a request is the header that the client sent, as it is."""
    original = RequestIds.of

    def echo(ids: RequestIds, request: web.BaseRequest) -> str:
        return request.headers.get("X-Request-ID") or original(ids, request)

    setattr(RequestIds, "of", echo)  # noqa: B010 mypy knows its type


def _writes_lines() -> None:
    """A newline in a job's text is one in the stream, too."""
    original = frames.event_frame

    def write_lines(recorded: Recorded) -> bytes:
        return original(recorded).replace(rb"\n", b"\n")

    for module in (broadcast, catch_up):
        setattr(module, "event_frame", write_lines)  # noqa: B010 mypy knows its type


SABOTAGE: dict[str, Callable[[], None]] = {
    "KEEPS_REQUESTS": _keeps_requests,
    "CONTINUES_AFTER_UPGRADES": _continues_after_upgrades,
    "ECHOES_REQUEST_IDS": _echoes_request_ids,
    "WRITES_LINES": _writes_lines,
}
