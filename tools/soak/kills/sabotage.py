"""Services with a fault each, which the campaigns must find."""

import asyncio
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from eventjobs import Context, handler
from eventjobs.commands.jobs import Jobs
from eventjobs.commands.submissions import Submissions
from eventjobs.domain.ids import id_of_key
from eventjobs.domain.outcomes import Failed, Outcome
from eventjobs.execution.attempt import RunningAttempt
from eventjobs.handlers.registry import Handler
from eventjobs.http import server as listening

from .handlers import HANDLERS

#: Between the commit and the response, so that a shutdown happens there.
REST_S = 0.05


def __getattr__(name: str) -> list[Handler]:
    """The handlers; this process from now on has the fault *name*."""
    if name not in SABOTAGE:
        raise AttributeError(name)
    return SABOTAGE[name]()


def _forgets_keys() -> list[Handler]:
    """Idempotency keys are ignored."""

    async def id_of_no_key(self: Jobs, key: str, owner: str | None) -> str:
        return id_of_key(str(uuid4()))

    setattr(Jobs, "id_of_key", id_of_no_key)  # noqa: B010 mypy knows its type
    return HANDLERS


def _counts_shutdowns() -> list[Handler]:
    """An attempt that a shutdown interrupts has failed."""
    original = RunningAttempt.outcome_of_stop

    def fail_at_shutdown(attempt: RunningAttempt) -> Outcome:
        if attempt.stop_reason == "shutdown":
            return Failed("stopped", "too slow")
        return original(attempt)

    setattr(RunningAttempt, "outcome_of_stop", fail_at_shutdown)  # noqa: B010 mypy knows its type
    return HANDLERS


def _leaves_processes() -> list[Handler]:
    """A handler starts a process, and does not end it."""

    @handler("noop")
    def noop(context: Context, payload: Any) -> Any:
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        return payload["token"]

    return [noop, *(each for each in HANDLERS if each.type != "noop")]


def _cuts_off() -> list[Handler]:
    """A shutdown closes connections before their responses are sent."""
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
