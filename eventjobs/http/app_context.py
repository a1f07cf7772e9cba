"""What every endpoint is given: the service, streams, long polls, request ids."""

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
    """What handlers work with."""

    service: Service
    snapshots: Snapshots
    streams: Streams
    polls: LongPolls
    ids: "RequestIds"
    takers: RemoteClaims


APP_CONTEXT = web.AppKey("site", AppContext)


class RequestIds:
    """Names for requests that bring none: a random start, then counted."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)

    def of(self, request: web.BaseRequest) -> str:
        given = request.headers.get("X-Request-ID")
        if given is not None and _ACCEPTED_ID.fullmatch(given):
            return given
        return self.new()

    def new(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"
