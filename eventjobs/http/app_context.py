"""The context of every endpoint: service, snapshots, streams, long polls, request ids."""

import os
import re
from dataclasses import dataclass
from itertools import count

from aiohttp import web

from eventjobs.attempts.remote_claims import RemoteClaims
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.streams import Streams
from eventjobs.log.long_poll import LongPolls
from eventjobs.service import Service

REQUEST_ID = web.RequestKey("request_id", str)
JOB_ID = web.RequestKey("job_id", str)

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class AppContext:
    """The parts that endpoints use."""

    service: Service
    snapshots: Snapshots
    streams: Streams
    long_polls: LongPolls
    request_ids: "RequestIds"
    remote_claims: RemoteClaims


APP_CONTEXT = web.AppKey("context", AppContext)


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
