"""Detection of a process that is nearly out of file descriptors."""

import asyncio
import resource

from eventjobs.http.request_errors import OutOfDescriptors
from eventjobs.observability.logging import get_logger

#: Descriptors that connections leave to files, the log and processes; at most a quarter of all.
RESERVED_DESCRIPTORS = 64
#: Seconds between two log lines about refused connections.
REPEATED_S = 10.0


class DescriptorGuard:
    """Finds out whether a new connection has to be refused."""

    def __init__(self) -> None:
        self._logged_s = -REPEATED_S

    def must_refuse(self, transport: asyncio.BaseTransport, connections: int) -> bool:
        """Whether the new connection of *transport*, one of so many *connections*, leaves too few
        descriptors. That is logged at most every REPEATED_S.

        The kernel assigns the lowest free number, so the number of the newest descriptor is a
        lower bound of those in use.
        """
        connection = transport.get_extra_info("socket")
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if connection is None or limit == resource.RLIM_INFINITY:
            return False
        if connection.fileno() < limit - min(RESERVED_DESCRIPTORS, limit // 4):
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s >= REPEATED_S:
            self._logged_s = now_s
            get_logger("eventjobs.http").error(
                "connections refused",
                error=OutOfDescriptors.__doc__,
                open=connections,
                limit=limit,
            )
        return True
