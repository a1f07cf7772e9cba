"""Services that break a promise, to see that the campaigns notice."""

import asyncio
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from eventjobs import Context, handler
from eventjobs.commands.submissions import Submissions
from eventjobs.domain.outcomes import Failed, Outcome
from eventjobs.execution.attempt import RunningAttempt
from eventjobs.handlers.registry import Handler
from eventjobs.http import server as listening
from eventjobs.http.endpoints import submissions

from .crash_handlers import HANDLERS

#: Between the log and the answer, so that a shutdown finds somebody there.
REST_S = 0.05


def __getattr__(name: str) -> list[Handler]:
    """The handlers, in a process that from now on does as *name* says."""
    if name not in SABOTAGE:
        raise AttributeError(name)
    return SABOTAGE[name]()


def _forgets_keys() -> list[Handler]:
    """Idempotency keys mean nothing."""
    setattr(submissions, "id_of_key", lambda key: str(uuid4()))  # noqa: B010 mypy knows its type
    return HANDLERS


def _counts_shutdowns() -> list[Handler]:
    """An attempt that a shutdown cuts off has failed."""
    told = RunningAttempt.outcome_of_stop

    def interrupted(attempt: RunningAttempt) -> Outcome:
        return Failed("stopped", "too slow") if attempt.stop_reason == "shutdown" else told(attempt)

    setattr(RunningAttempt, "interrupted", interrupted)  # noqa: B010 mypy knows its type
    return HANDLERS


def _leaves_processes() -> list[Handler]:
    """A handler starts a process, and forgets about it."""

    @handler("noop")
    def noop(context: Context, payload: Any) -> Any:
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        return payload["token"]

    return [noop, *(each for each in HANDLERS if each.type != "noop")]


def _cuts_off() -> list[Handler]:
    """A shutdown closes the connections first, also of whoever is about to be answered."""
    submit = Submissions.submit

    async def submit_and_rest(self: Submissions, *args: Any, **kwargs: Any) -> Any:
        outcome = await submit(self, *args, **kwargs)
        await asyncio.sleep(REST_S)
        return outcome

    close = listening.Listening.close

    async def cut_off_and_close(self: listening.Listening) -> None:
        for each in self.connections:
            each.force_close()
        await close(self)

    setattr(Submissions, "submit", submit_and_rest)  # noqa: B010 mypy knows its type
    setattr(listening.Listening, "close", cut_off_and_close)  # noqa: B010 mypy knows its type
    return HANDLERS


SABOTAGE: dict[str, Callable[[], list[Handler]]] = {
    "FORGETS_KEYS": _forgets_keys,
    "COUNTS_SHUTDOWNS": _counts_shutdowns,
    "LEAVES_PROCESSES": _leaves_processes,
    "CUTS_OFF": _cuts_off,
}
