"""Heartbeats: they renew the leases of the jobs that a worker holds."""

import asyncio

import aiohttp

from eventjobs.client.errors import ApiError, Unreachable
from eventjobs.clock import Clock, sleep
from eventjobs.worker.delivery import Delivery
from eventjobs.worker.held_jobs import HeldJob, HeldJobs
from eventjobs.worker.outage import Outage

#: Seconds between two heartbeats while the service does not respond, at most.
OUTAGE_INTERVAL_S = 1.0
#: The shortest pause between two rounds of heartbeats, and the shortest timeout of one.
PAUSE_MIN_S, TIMEOUT_MIN_S = 0.05, 0.5


class Heartbeats:
    """Sends a heartbeat for each held job three times within the shortest lease."""

    def __init__(self, delivery: Delivery, held: HeldJobs, outage: Outage, clock: Clock) -> None:
        self._delivery = delivery
        self._held = held
        self._outage = outage
        self._clock = clock

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            await self._held.wait_for_any()
            started_s = self._clock.monotonic_s()
            interval_s = min(held.claimed.lease_s for held in self._held) / 3
            await asyncio.gather(*(self._send(held, interval_s) for held in self._held))
            took_s = self._clock.monotonic_s() - started_s
            if self._outage.code is not None:
                interval_s = min(interval_s, OUTAGE_INTERVAL_S)
            await sleep(self._clock, max(PAUSE_MIN_S, interval_s - took_s))

    async def _send(self, held: HeldJob, timeout_s: float) -> None:
        timeout = aiohttp.ClientTimeout(total=max(timeout_s, TIMEOUT_MIN_S))
        try:
            await self._delivery.call(held.job, "heartbeat", {}, timeout)
        except ApiError as error:
            if not self._delivery.is_lost(error):
                self._outage.log(error)
            elif not held.ending:
                self._held.lose(held)
        except Unreachable as error:
            self._outage.log(error)
