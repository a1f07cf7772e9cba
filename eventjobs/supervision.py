"""Background loops that survive failures of items and of themselves.

`Isolation` contains the failure of one item of a loop. `Supervisor` restarts a loop that failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from eventjobs.cache import LRUCache
from eventjobs.clock import Clock, sleep
from eventjobs.errors import LogError
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe

#: Seconds before the second try, doubled for each later one up to the longest.
AGAIN_S, AGAIN_MAX_S = 1.0, 60.0
#: The longest wait after a failure of the log or the disk, which ends for all items at once.
DISK_RETRY_MAX_S = 5.0
#: A restarted loop that has run for so long counts as recovered.
RECOVERED_S = 30.0
#: Failing items whose waits are remembered. Older ones are attempted at once.
ITEMS_MAX = 10_000


class Isolation:
    """Handles the items of one loop. A failing item is logged and waits; the others go on.

    A failure of the log or the disk is a WARNING, any other one an ERROR with its traceback.
    """

    def __init__(self, clock: Clock, logger: str, what: str) -> None:
        self._clock = clock
        self._log = get_logger(logger)
        self._what = what
        #: By item: when it may be attempted again, and the wait after its next failure.
        self._waits: LRUCache[tuple[float, float]] = LRUCache(ITEMS_MAX, ITEMS_MAX)

    def __len__(self) -> int:
        """How many items failed at their last attempt."""
        return len(self._waits)

    def may_run(self, item: str) -> bool:
        """Whether *item* has not failed, or has waited long enough since."""
        wait = self._waits.get(item)
        return wait is None or wait[0] <= self._clock.monotonic_s()

    async def attempt(self, item: str, work: Awaitable[object], **about: Any) -> bool:
        """Whether *work* succeeded. *about* goes into the log line of a failure."""
        try:
            await work
        except BaseException as error:
            if is_cancellation(error):
                raise
            self.record_failure(item, error, **about)
            return False
        self._waits.drop(item)
        return True

    def record_failure(self, item: str, error: BaseException, **about: Any) -> None:
        """Log *error*, and make *item* wait."""
        if is_transient := isinstance(error, LogError | OSError):
            self._log.warning(f"{self._what} waits", **about, error=describe(error))
        else:
            self._log.error(f"{self._what} failed", **about, exc_info=error)
        _, wait_s = self._waits.get(item) or (0.0, AGAIN_S)
        again_s = self._clock.monotonic_s() + wait_s
        longest_s = DISK_RETRY_MAX_S if is_transient else AGAIN_MAX_S
        self._waits.put(item, (again_s, min(wait_s * 2, longest_s)), 1)


class Supervisor:
    """Runs background tasks. A loop that fails is logged and restarted after a wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.tasks: list[asyncio.Task[None]] = []
        #: Whether a task has ended with an error. Loops are restarted and do not count.
        self.is_broken = False
        #: The error of each loop that failed and has not run for RECOVERED_S since.
        self.failing: dict[str, str] = {}
        self._log = get_logger("eventjobs")

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in a task. An error is logged and ends the task."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_done)
        self.tasks.append(task)

    def start_loop(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run *loop* in a task, and restart it after a failure."""
        self.start(name, self.keep_running(name, loop))

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.is_broken = True
            self._log.critical("stopped working", part=task.get_name(), exc_info=error)

    async def keep_running(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run *loop* until it returns, or this is cancelled. Restart it after a failure."""
        wait_s = AGAIN_S
        while True:
            began_s = self._clock.monotonic_s()
            recovered = self._clock.call_later(RECOVERED_S, lambda: self.failing.pop(name, None))
            try:
                await loop()
                self.failing.pop(name, None)
                return
            except LogError as error:  # the log reports its own failures
                self._log.warning("background work waits", part=name, error=error.code)
            except BaseException as error:
                if is_cancellation(error):
                    raise
                self.failing[name] = describe(error)
                self._log.critical("stopped working", part=name, exc_info=error)
            finally:
                recovered.cancel()
            if self._clock.monotonic_s() - began_s >= RECOVERED_S:
                wait_s = AGAIN_S
            await sleep(self._clock, wait_s)
            wait_s = min(wait_s * 2, AGAIN_MAX_S)


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* cancels the current task from outside.

    A SystemExit or CancelledError that the code of a user raises does not.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
