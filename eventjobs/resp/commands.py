"""The commands: a job is the JSON at the key `job:<id>`, and the queued uploads are a list."""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import orjson

from eventjobs.auth.principals import ANONYMOUS, LOCAL, Principal
from eventjobs.errors import EventjobsError, InvalidCredential, JobGone, JobNotFound
from eventjobs.http.app_context import AppContext
from eventjobs.http.dialects.job_ids import BadJobId
from eventjobs.http.proxies import client_network
from eventjobs.http.rate_limits import Quota, RequestKind
from eventjobs.http.request_errors import Forbidden, RateLimited, Unauthenticated
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import trace
from eventjobs.resp import protocol
from eventjobs.resp.keys import Keys
from eventjobs.resp.patterns import compile_pattern
from eventjobs.resp.protocol import NULL, OK
from eventjobs.version import __version__

Reply = AsyncIterator[bytes]
Arguments = list[bytes]

#: The version of Redis whose replies these are, for clients that look at it.
REDIS_VERSION = "7.0.0"
#: What a browser sends that a page makes talk to this port.
_HTTP = frozenset({"POST", "HOST:"})
#: Commands of Redis that write: they exist, and are refused.
_WRITES = frozenset(
    {"DEL", "EXPIRE", "FLUSHALL", "FLUSHDB", "HSET", "LPOP", "LPUSH", "RPUSH", "SET"}
)
_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
_NO_AUTH = "NOAUTH Authentication required."


class Refused(Exception):
    """A command is refused; the message is the reply."""


class Command(NamedTuple):
    """A command: what replies to it, the number of its arguments, and who may send it."""

    reply: Callable[["Session", Arguments], Reply]
    least: int
    most: int | None
    #: Whether it is answered before AUTH.
    public: bool = False


class Session:
    """One connection: who it belongs to, and the replies to its commands."""

    def __init__(self, context: AppContext, base_url: str, address: str) -> None:
        self._service = context.service
        self._keys = Keys(context.service, base_url)
        self._rates = context.rate_limits.of_route(RequestKind.READ, varies=False)
        self._address = client_network(address)
        #: Who sends the commands; None before AUTH, and once the credential is revoked or expired.
        self._principal: Principal | None = None
        #: Set when the connection is to be closed after the reply.
        self.ended = False
        if self._service.settings.auth == "off":
            self._principal = LOCAL
        elif self._service.settings.auth == "optional":
            self._principal = ANONYMOUS

    @property
    def is_authenticated(self) -> bool:
        return self._principal is not None

    async def execute(self, command: Arguments) -> Reply:
        """The reply to *command*, in parts. A fault after the first part ends the session."""
        begun = False
        try:
            async for part in self._reply(command):
                begun = True
                yield part
        except (Refused, EventjobsError) as error:
            self.ended |= begun
            yield b"" if begun else protocol.error(_error_text(error))
        except Exception as error:  # noqa: BLE001 a fault of one command, not of the listener
            self.ended |= begun
            get_logger("eventjobs.resp").error("a command failed", exception=trace(error))
            yield b"" if begun else protocol.error("ERR internal error; see the log")

    def _reply(self, command: Arguments) -> Reply:
        name, arguments = command[0].decode("latin-1").upper(), command[1:]
        if (definition := _COMMANDS.get(name)) is None:
            raise self._unknown(name)
        if len(arguments) < definition.least or (
            definition.most is not None and len(arguments) > definition.most
        ):
            raise Refused(f"ERR wrong number of arguments for '{name.lower()}' command")
        self._check_principal()
        self._count()
        if self._principal is None and not definition.public:
            raise Refused(_NO_AUTH)
        return definition.reply(self, arguments)

    def _unknown(self, name: str) -> Refused:
        if name in _HTTP:
            get_logger("eventjobs.resp").warning(
                "HTTP on the port for redis-cli; connection closed"
            )
            self.ended = True
            return Refused("ERR this is not HTTP")
        if name in _WRITES:
            return Refused("READONLY jobs cannot be changed here.")
        return Refused(f"ERR unknown command '{name[:64]}'")

    def _check_principal(self) -> None:
        """Forget a principal whose credential is revoked or has expired."""
        if self._principal is not None and not self._service.credentials.is_valid(self._principal):
            self._principal = None

    def _count(self) -> None:
        """Count the command as a request to read. Raises RateLimited."""
        rates = self._rates and self._rates[0]
        if rates:
            quota = Quota(rates, self._address)
            quota.count_principal(self._principal or ANONYMOUS)
            quota.check()

    @property
    def _reader(self) -> Principal:
        assert self._principal is not None
        return self._principal

    # --- keys

    async def _get(self, arguments: Arguments) -> Reply:
        yield await self._value(arguments[0])

    async def _mget(self, arguments: Arguments) -> Reply:
        yield protocol.array_head(len(arguments))
        for key in arguments:
            yield NULL if key == self._keys.queue else await self._value(key)

    async def _value(self, key: bytes) -> bytes:
        """The job at *key* as a string, or NULL. Raises Refused for the queue."""
        if key == self._keys.queue:
            raise Refused(_WRONG_TYPE)
        try:
            body = await self._keys.job(self._reader, key)
        except (JobNotFound, JobGone, BadJobId):
            return NULL
        return protocol.bulk(orjson.dumps(body))

    async def _queue_length(self) -> int:
        return await self._keys.queue_length(self._reader)

    async def _type_of(self, key: bytes) -> str:
        if key == self._keys.queue:
            return "list" if await self._queue_length() else "none"
        return "none" if await self._value(key) == NULL else "string"

    async def _exists(self, arguments: Arguments) -> Reply:
        yield protocol.integer(sum([await self._type_of(key) != "none" for key in arguments]))

    async def _type(self, arguments: Arguments) -> Reply:
        yield protocol.simple(await self._type_of(arguments[0]))

    async def _llen(self, arguments: Arguments) -> Reply:
        if arguments[0] == self._keys.queue:
            yield protocol.integer(await self._queue_length())
        elif await self._value(arguments[0]) == NULL:
            yield protocol.integer(0)
        else:
            raise Refused(_WRONG_TYPE)

    async def _matching(self, arguments: Arguments) -> Reply:
        job_keys = await self._keys.matching(self._reader, arguments[0])
        queue = self._keys.queue
        lists = [queue] if compile_pattern(arguments[0]).fullmatch(queue) else []
        if lists and not await self._queue_length():
            lists = []  # an empty list is no key
        yield protocol.array_head(len(lists) + len(job_keys)) + b"".join(map(protocol.bulk, lists))
        for page in job_keys.pages():
            yield b"".join(map(protocol.bulk, page))

    # --- the connection

    async def _auth(self, arguments: Arguments) -> Reply:
        await self._authenticate(*arguments)
        yield OK

    async def _authenticate(self, *names: bytes) -> None:
        """AUTH [default] TOKEN. A refused one leaves the principal as it was. Raises Refused."""
        if self._service.settings.auth == "off":
            raise Refused("ERR AUTH called, and this service runs without authentication")
        try:
            if len(names) == 2 and names[0] != b"default":
                raise InvalidCredential
            self._principal = await self._service.credentials.verify(names[-1].decode("latin-1"))
        except InvalidCredential as error:
            raise Refused(
                "WRONGPASS invalid username-password pair or user is disabled."
            ) from error

    async def _hello(self, arguments: Arguments) -> Reply:
        if arguments and arguments[0] != b"2":
            raise Refused("NOPROTO unsupported protocol version")
        options = arguments[1:]
        while options:
            if options[0].upper() == b"AUTH" and len(options) > 2:
                await self._authenticate(*options[1:3])
                options = options[3:]
            elif options[0].upper() == b"SETNAME" and len(options) > 1:
                options = options[2:]
            else:
                raise Refused("ERR syntax error in HELLO")
        if self._principal is None:
            raise Refused(_NO_AUTH)
        about = [b"server", b"redis", b"version", REDIS_VERSION.encode()]
        about += [b"mode", b"standalone", b"role", b"replica"]
        yield protocol.array_head(14) + b"".join(map(protocol.bulk, about))
        yield protocol.bulk(b"proto") + protocol.integer(2)
        yield protocol.bulk(b"id") + protocol.integer(0)
        yield protocol.bulk(b"modules") + protocol.array_head(0)

    async def _ping(self, arguments: Arguments) -> Reply:
        yield protocol.bulk(arguments[0]) if arguments else protocol.simple("PONG")

    async def _select(self, arguments: Arguments) -> Reply:
        if arguments[0] != b"0":
            raise Refused("ERR DB index is out of range")
        yield OK

    async def _client(self, arguments: Arguments) -> Reply:
        if arguments[0].upper() not in (b"SETNAME", b"SETINFO"):
            raise Refused("ERR unknown subcommand of CLIENT")
        yield OK

    async def _command(self, arguments: Arguments) -> Reply:
        yield protocol.array_head(0)

    async def _info(self, arguments: Arguments) -> Reply:
        lines = ["# Server", f"redis_version:{REDIS_VERSION}", f"eventjobs_version:{__version__}"]
        lines += ["redis_mode:standalone", "# Replication", "role:slave", "slave_read_only:1"]
        try:
            count = await self._keys.job_count(self._reader)
        except (Forbidden, Unauthenticated):
            pass  # an anonymous client reads jobs by their ids alone
        else:
            lines += ["# Keyspace", f"db0:keys={count},expires=0,avg_ttl=0"]
        yield protocol.bulk("\r\n".join([*lines, ""]).encode())

    async def _quit(self, arguments: Arguments) -> Reply:
        self.ended = True
        yield OK


def _error_text(error: Refused | EventjobsError) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, Unauthenticated):
        return _NO_AUTH
    if isinstance(error, Forbidden):
        return f"NOPERM {error.message}"
    if isinstance(error, RateLimited):
        return f"ERR {error.code}: try again in {error.wait_s} s"
    return f"ERR {error.code}: {error.message}"


_COMMANDS = {
    "AUTH": Command(Session._auth, 1, 2, public=True),
    "HELLO": Command(Session._hello, 0, None, public=True),
    "QUIT": Command(Session._quit, 0, None, public=True),
    "PING": Command(Session._ping, 0, 1),
    "SELECT": Command(Session._select, 1, 1),
    "CLIENT": Command(Session._client, 1, None),
    "COMMAND": Command(Session._command, 0, None),
    "INFO": Command(Session._info, 0, None),
    "GET": Command(Session._get, 1, 1),
    "MGET": Command(Session._mget, 1, None),
    "EXISTS": Command(Session._exists, 1, None),
    "TYPE": Command(Session._type, 1, 1),
    "LLEN": Command(Session._llen, 1, 1),
    "KEYS": Command(Session._matching, 1, 1),
}
