"""Due times after the wall clock was set: which jobs seem due and are not.

A delay takes as long as it says, also when the wall clock is set. `run_at` follows the wall clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from eventjobs.clock import Clock, Timeline
from eventjobs.commands.jobs import Jobs


@dataclass(frozen=True, slots=True)
class _DueTime:
    """When a job is due: at a time of the wall clock, or of the monotonic one."""

    wall_us: int | None = None
    monotonic_s: float = 0.0

    def remaining_s(self, now_us: int, now_s: float) -> float:
        return self.monotonic_s - now_s if self.wall_us is None else (self.wall_us - now_us) / 1e6

    def is_reached(self, now_us: int, now_s: float) -> bool:
        # Delays are whole microseconds, and the monotonic clock is not.
        return self.remaining_s(now_us, now_s) < 1e-6


class DueTimes:
    """Finds the jobs that only seem due, because the wall clock was set."""

    def __init__(self, jobs: Jobs, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        #: Replaced at the start of a service, once the newest time of its log is known.
        self.timeline = Timeline(clock, lambda: jobs.log.head)
        #: By job id. Empty while the timeline is straight.
        self._not_due: dict[str, _DueTime] = {}

    def search_until_us(self) -> int:
        """The recorded due time up to which a search has to go."""
        wall_us = self.timeline.now_us()
        return wall_us if self.timeline.is_straight else self.timeline.horizon_us()

    async def find_not_due(self, job_ids: Iterable[str]) -> set[str]:
        """The ids of the jobs that are not due yet. They are in `not_due` until they are."""
        if self.timeline.is_straight:
            return set()
        not_due = set()
        for job_id in job_ids:
            job = await self._jobs.load_even_parked(job_id)
            if job is None or job.due_us <= job.updated_us:
                continue
            if job.due_us == job.spec.run_at_us:
                due = _DueTime(wall_us=job.due_us)
            else:
                left_s = self.timeline.left_s(job.updated_us, job.position, job.due_us)
                due = _DueTime(monotonic_s=self._clock.monotonic_s() + left_s)
            if not due.is_reached(self.timeline.now_us(), self._clock.monotonic_s()):
                self._not_due[job_id] = due
                not_due.add(job_id)
        return not_due

    def not_due(self) -> set[str]:
        """The ids of the jobs that *find_not_due* found and that are not due yet."""
        if not self._not_due:
            return set()
        now_us, now_s = self.timeline.now_us(), self._clock.monotonic_s()
        for job_id, due in list(self._not_due.items()):
            if due.is_reached(now_us, now_s):
                del self._not_due[job_id]
        return set(self._not_due)

    def next_due_s(self) -> float | None:
        """Seconds until the first of these jobs is due. None without any."""
        if not self._not_due:
            return None
        now_us, now_s = self.timeline.now_us(), self._clock.monotonic_s()
        return min(due.remaining_s(now_us, now_s) for due in self._not_due.values())

    def forget(self, job_ids: Iterable[str]) -> None:
        """Forget jobs that have changed: the next search finds their due times anew."""
        if self._not_due:
            for job_id in job_ids:
                self._not_due.pop(job_id, None)
