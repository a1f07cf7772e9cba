"""Logs a warning, with a stack trace, when a handler blocks the event loop."""

import asyncio
import sys
import threading
import traceback

from eventjobs.observability.logging import get_logger


class LoopMonitor:
    """A thread that watches one event loop until it is closed."""

    BEAT_S = 0.25
    BLOCKED_S = 1.0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._responded = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self.BEAT_S):
            self._responded.clear()
            try:
                self._loop.call_soon_threadsafe(self._responded.set)
            except RuntimeError:
                return
            if not self._responded.wait(self.BLOCKED_S):
                if self._closed.is_set():
                    return  # the loop has ended, and is not blocked
                self._log_blocked()
                while not self._responded.wait(self.BLOCKED_S):
                    if self._closed.is_set() or self._loop.is_closed():
                        return

    def _log_blocked(self) -> None:
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread_id)
        get_logger("eventjobs.watchdog").warning(
            "event loop blocked",
            by=task.get_name() if task else None,
            stack="".join(traceback.format_stack(frame, 4)) if frame else None,
        )
