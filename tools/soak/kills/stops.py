"""Stops the service by SIGTERM under load, again and again.

An attempt that a shutdown interrupts does not count, no job is lost, every recorded request was
answered, the exit code is 0, and no process is left behind. The checks of campaign.py hold, too.
"""

import signal
from pathlib import Path

from eventjobs.domain.events import AttemptFailed, AttemptReleased
from eventjobs.domain.recorded import Recorded

from .campaign import Campaign, Plan
from .checker import Checker
from .server import Life

#: Types of jobs, with their shares; with handlers that ignore a stop, and handlers in processes.
TYPES = {
    "noop": 46,
    "progress": 18,
    "flaky": 10,
    "slow": 8,
    "broken": 3,
    "thread": 6,
    "deaf": 3,
    "process": 3,
    "artifact": 3,
}
SETTINGS = {
    "EVENTJOBS_DRAIN_S": "0.05",
    "EVENTJOBS_GRACE_S": "0.1",
    "EVENTJOBS_PROCESSES": "2",
}
#: Error codes of the handlers; an attempt must not fail with another one.
THEIR_OWN = {"flaky", "broken"}
#: From the signal to the exit, on a busy machine.
STOP_S = 10.0


class StopsChecker(Checker):
    """Without kills every request is answered, and no attempt fails by itself."""

    released = 0

    def _count_unanswered(self, token: str) -> None:
        super()._count_unanswered(token)
        self.fault(f"{token!r} is in the log, and was never answered")

    def _find(self, recorded: Recorded, where: str) -> None:
        super()._find(recorded, where)
        event = recorded.event
        if isinstance(event, AttemptReleased):
            self.released += 1
        if isinstance(event, AttemptFailed) and event.code not in THEIR_OWN:
            self.fault(f"{where}: {event.code} counts, though only a shutdown can be its cause")


class Stops(Campaign):
    """The campaign with SIGTERM in place of SIGKILL; *kills* counts the stops."""

    _checker: StopsChecker

    def __init__(self, data: Path, plan: Plan) -> None:
        super().__init__(data, plan, StopsChecker)
        self._types, self._settings = TYPES, SETTINGS

    @property
    def released(self) -> int:
        """The number of attempts that were released by a shutdown."""
        return self._checker.released

    async def _kill(self, life: Life) -> None:
        starting = not life.url.done()
        try:
            code = await life.end(signal.SIGTERM, STOP_S)
        except TimeoutError:
            self._history.fault(f"the server still ran {STOP_S} s after SIGTERM")
            code = await life.end(signal.SIGKILL)
        # Before the service handles signals, SIGTERM ends it with the default action.
        if code != 0 and not (starting and code == -signal.SIGTERM):
            self._history.fault(f"after SIGTERM the server ended with {code}")
        for command in life.left:
            self._history.fault(f"after SIGTERM the server left a process behind: {command}")
