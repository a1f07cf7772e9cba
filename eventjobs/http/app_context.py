"""What every endpoint uses: service, snapshots, streams, long polls, ids, who sends a request."""

from dataclasses import dataclass

from aiohttp import web

from eventjobs.attempts.remote_claims import RemoteClaims
from eventjobs.http.access_log import AccessLog
from eventjobs.http.auth import Authenticator
from eventjobs.http.cors import CrossOriginPolicy
from eventjobs.http.origin_guard import OriginGuard
from eventjobs.http.owner_limits import OwnerLimits
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.rate_limits import RateLimits
from eventjobs.http.request_ids import RequestIds
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.streams import Streams
from eventjobs.log.long_poll import LongPolls
from eventjobs.service import Service


@dataclass(frozen=True)
class AppContext:
    """The parts that endpoints use."""

    service: Service
    snapshots: Snapshots
    streams: Streams
    long_polls: LongPolls
    request_ids: RequestIds
    remote_claims: RemoteClaims
    authenticator: Authenticator
    proxies: TrustedProxies
    guard: OriginGuard
    rate_limits: RateLimits
    owner_polls: OwnerLimits
    #: None where no other origin may use the service.
    cors: CrossOriginPolicy | None
    access_log: AccessLog
    #: The names of the dialects that are served.
    dialects: frozenset[str]
    #: The names of the dialects whose log lines are written.
    dialect_logs: frozenset[str]


APP_CONTEXT = web.AppKey("context", AppContext)
