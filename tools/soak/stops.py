"""Tell the service to stop, again and again under load, and check that nothing pays for it.

No attempt that a shutdown cuts off counts, no job is lost, what is in the log was answered, the
exit code is 0, and no process is left behind. Everything else that the kills are checked for, too:
see kills.py.
"""

import signal
from pathlib import Path

from eventjobs.domain.events import AttemptFailed, AttemptReleased
from eventjobs.domain.recorded import Recorded

from .crash_checker import Checker
from .crash_server import Life
from .kills import Campaign, Plan

#: Handlers that ignore being stopped, and handlers in processes, too.
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
#: How the handlers fail by themselves: nothing else may end an attempt as failed.
THEIR_OWN = {"flaky", "broken"}
#: From the signal to the end, on a machine that is busy.
STOP_S = 10.0


class StopsChecker(Checker):
    """Knows that nobody was killed, so that no attempt may end as if."""

    released = 0

    def _unanswered(self, token: str) -> None:
        super()._unanswered(token)
        self.fault(f"{token!r} is in the log, and was never answered")

    def _find(self, recorded: Recorded, where: str) -> None:
        super()._find(recorded, where)
        event = recorded.event
        if isinstance(event, AttemptReleased):
            self.released += 1
        if isinstance(event, AttemptFailed) and event.code not in THEIR_OWN:
            self.fault(f"{where}: {event.code} counts, and only a shutdown can be why")


class Stops(Campaign):
    """SIGTERM where the campaign has SIGKILL; *kills* are the stops."""

    _checker: StopsChecker

    def __init__(self, data: Path, plan: Plan) -> None:
        super().__init__(data, plan, StopsChecker)
        self._types, self._settings = TYPES, SETTINGS

    @property
    def released(self) -> int:
        """Attempts that were given back unfinished."""
        return self._checker.released

    async def _kill(self, life: Life) -> None:
        starting = not life.url.done()
        try:
            code = await life.end(signal.SIGTERM, STOP_S)
        except TimeoutError:
            self._history.fault(f"told to stop, the server still ran after {STOP_S} s")
            code = await life.end(signal.SIGKILL)
        # Who has not begun to listen for signals yet is simply ended by them.
        if code != 0 and not (starting and code == -signal.SIGTERM):
            self._history.fault(f"told to stop, the server ended with {code}")
        for command in life.left:
            self._history.fault(f"told to stop, the server left a process behind: {command}")
