"""The ready queue: the jobs that may start now, in memory, in the order in which they start.

It is pure: no loop, no clock, no SQL. docs/internals/ready-queue.md explains it.
"""

from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heapreplace
from typing import Literal

from eventjobs.attempts.ready_window import (
    NOTHING_READ,
    Rank,
    ReadyWindow,
    WindowSize,
    by_branch,
    by_due_time,
    by_rank,
)
from eventjobs.projections.queue import WaitingJob

#: Jobs of one type in one queue in memory, and twice as many before the last ones are dropped.
#: One takes up to 550 bytes, measured with tracemalloc.
JOBS_MAX = 10_000
#: The lines share so many times as many, and the lanes do.
SHARED_WINDOWS = 5

#: What becomes of an offered job: it is taken; it is taken as the last one; or its key, queue or
#: type allows no start now.
Answer = Literal["taken", "last", "key", "queue", "type"]
Offer = Callable[[WaitingJob], Answer]


class _Line:
    """The jobs of one type in one queue."""

    __slots__ = ("lanes", "open_keys", "queue", "type", "window")

    def __init__(self, type: str, queue: str, size: WindowSize, horizon: Rank | None) -> None:
        self.type = type
        self.queue = queue
        self.window = ReadyWindow(("line", type, queue), by_rank, size, horizon)
        #: By key: the jobs that it has refused. They wait here, not before those behind them.
        self.lanes: dict[str, ReadyWindow] = {}
        #: The keys of lanes that may be offered again.
        self.open_keys: set[str] = set()

    def windows(self) -> Iterator[ReadyWindow]:
        yield self.window
        for key in self.open_keys:
            yield self.lanes[key]


class ReadyQueue:
    """Has each job that is due and that nothing holds, or the table has it, behind a horizon.

    Taking a job is not claiming it: a taken job is kept aside until *put_back*, and follows its
    changes there.
    """

    def __init__(self, jobs_max: int = JOBS_MAX) -> None:
        #: Of the lines and the children of a type, of the lanes, and of the later jobs.
        total_max = SHARED_WINDOWS * jobs_max
        self._size = WindowSize(jobs_max, total_max)
        self._lane_size = WindowSize(max(1, jobs_max // 100), total_max)
        #: The horizon of what is new: before *load* the table may have more of it.
        self._new_horizon: Rank | None = NOTHING_READ
        #: By type and queue.
        self._lines: dict[str, dict[str, _Line]] = {}
        #: By key: the lines with a lane of it.
        self._lines_of_key: dict[str, set[tuple[str, str]]] = {}
        #: By type: the jobs with a parent; and those of them that were passed over.
        self._children: dict[str, ReadyWindow] = {}
        self._held_children: dict[str, ReadyWindow] = {}
        later_size = WindowSize(jobs_max, jobs_max)
        self.later = ReadyWindow(("later",), by_due_time, later_size, NOTHING_READ)
        #: The jobs that are due up to this time are not in *later*. It never goes back, though
        #: clocks do: such a job may have been left to the table of its line.
        self.admitted_until_us = 0
        #: Jobs that are not due, though their due time has passed: the wall clock was set.
        self._deferred: dict[str, WaitingJob] = {}
        self._taken: dict[str, WaitingJob | None] = {}
        self._paused: set[tuple[str, str]] = set()
        self._available: set[str] = set()

    def load(self, lines: Collection[tuple[str, str]]) -> None:
        """The table has jobs of these (type, queue), and no others that were not put here."""
        for type, queue in lines:
            self._line(type, queue)
            self._children_of(type)
            self._available.add(type)
        self._new_horizon = None

    # --- changes of jobs

    def put(self, job: WaitingJob) -> None:
        """*job* waits to start; before that it was not here, or removed."""
        if job.job_id in self._taken:
            self._taken[job.job_id] = job
        elif job.later:
            self.later.put(job)
        else:
            self._admit(job)

    def remove(self, job: WaitingJob) -> None:
        """*job* does not wait to start any more."""
        if job.job_id in self._taken:
            self._taken[job.job_id] = None
        self._discard(job)

    def _discard(self, job: WaitingJob) -> None:
        job_id, type, key = job.job_id, job.type, job.key
        self._deferred.pop(job_id, None)
        self.later.discard(job_id)
        if (line := self._lines.get(type, {}).get(job.queue)) is not None:
            line.window.discard(job_id)
            if key is not None and key in line.lanes:
                line.lanes[key].discard(job_id)
                self._drop_used_lane(line, key)
        for children in (self._children, self._held_children):
            if type in children:
                children[type].discard(job_id)

    # --- due times

    def next_due_us(self) -> int | None:
        """When *admit_due* is next to be called, or *later* to be read."""
        rank = None if self.later.is_read else self.later.next_rank()
        return None if rank is None else rank[0]

    def admit_due(self, until_us: int) -> ReadyWindow | None:
        """The later jobs with a due time up to *until_us* may start.

        When the table may have more of them, the window to be read; call it again after that.
        """
        self.admitted_until_us = max(self.admitted_until_us, until_us)
        later = self.later
        while (rank := later.next_rank()) is not None and rank[0] <= until_us:
            if (job := later.first()) is None:
                return later
            later.discard(job.job_id)
            self._admit(job)
        return None

    def defer(self, job_id: str) -> None:
        """A taken job is not due, though its due time has passed. It waits for *admit_deferred*."""
        job = self._taken.pop(job_id)
        if job is not None:
            self._deferred[job_id] = job

    def admit_deferred(self, not_due: Collection[str]) -> None:
        """The deferred jobs may start, all but *not_due*."""
        for job_id in [*self._deferred]:
            if job_id not in not_due:
                self._admit(self._deferred.pop(job_id))

    def _admit(self, job: WaitingJob) -> None:
        if job.later:
            job = job._replace(later=False)  # as long as it does not change
        self._line(job.type, job.queue).window.put(job)
        if job.branch is not None:
            self._children_of(job.type).put(job)
        if ("queue", job.queue) not in self._paused:
            self._available.add(job.type)

    # --- what holds jobs

    def pause(self, kind: str, name: str) -> None:
        self._paused.add((kind, name))

    def resume(self, kind: str, name: str) -> None:
        self._paused.discard((kind, name))
        self.free(kind, name)

    def free(self, kind: str, name: str) -> None:
        """This type, queue or concurrency key may allow a start again."""
        if kind == "type":
            types = {name} & self._lines.keys()
        elif kind == "queue":
            types = {type for type, lines in self._lines.items() if name in lines}
        else:
            lines_of_key = self._lines_of_key.get(name, ())
            for type, queue in lines_of_key:
                self._lines[type][queue].open_keys.add(name)
            types = {type for type, _ in lines_of_key}
        self._available |= types
        for type in [*self._held_children] if kind != "type" else ():
            held = self._held_children.pop(type)
            children = self._children_of(type)
            for job in held.jobs():
                children.put(job)
            children.lower_horizon(held.horizon)
            self._available.add(type)

    def take_available(self) -> set[str]:
        """The types of which a job may have become available since the last call."""
        available, self._available = self._available, set()
        paused = {name for kind, name in self._paused if kind == "type"}
        return available - paused

    # --- taking

    def take(self, types: Collection[str], offer: Offer) -> ReadyWindow | None:
        """Offer the jobs of *types*, best first, up to the last one.

        When the next job is in the table, the window to be read; call *take* again after that.
        """
        heads = [
            (rank, number, window, line)
            for number, (line, window) in enumerate(self._windows(types))
            if (rank := window.next_rank()) is not None
        ]
        heapify(heads)
        shut: set[tuple[str, str]] = set()
        while heads:
            head, number, window, line = heads[0]
            answer: Answer | None = None
            if ("type", line.type) in shut or ("queue", line.queue) in shut:
                heappop(heads)
                continue
            # A lane and the line may have the same job: the first may have been taken.
            if window.next_rank() == head:
                if (job := window.first()) is None:
                    return window
                answer = offer(job)
                if answer in ("taken", "last"):
                    self._take(job)
                    if answer == "last":
                        break
                elif answer == "key":
                    self._park(line, window, job)
                else:
                    shut.add((answer, line.type if answer == "type" else line.queue))
            rank = window.next_rank()
            if rank is None or (answer == "key" and window is not line.window):
                heappop(heads)
            else:
                heapreplace(heads, (rank, number, window, line))
        return None

    def take_children(self, types: Collection[str], offer: Offer) -> ReadyWindow | None:
        """As *take*, of jobs with a parent, the newest parent first."""
        windows = {
            type: self._children[type]
            for type in types
            if type in self._children and ("type", type) not in self._paused
        }
        while windows:
            ranks = [(rank, type) for type, each in windows.items() if (rank := each.next_rank())]
            if not ranks:
                break
            _, type = min(ranks)
            if (job := windows[type].first()) is None:
                return windows[type]
            answer = "queue" if ("queue", job.queue) in self._paused else offer(job)
            if answer in ("taken", "last"):
                self._take(job)
                if answer == "last":
                    break
            elif answer == "type":
                del windows[type]
            else:
                windows[type].discard(job.job_id)
                self._hold_child(job)
        return None

    def put_back(self, job_id: str) -> None:
        """End what *take* began. The job waits again, unless it was removed meanwhile."""
        job = self._taken.pop(job_id, None)
        if job is not None:
            self.put(job)

    def taken_job(self, job_id: str) -> WaitingJob | None:
        """The taken job, as it is now; None if it was removed."""
        return self._taken.get(job_id)

    def forget(self, job: WaitingJob | None) -> None:
        """The log says that *job* does not wait: do not put it back, unless it has changed since.

        Otherwise a wrong entry would be taken again and again.
        """
        if job is not None and self._taken.get(job.job_id) is job:
            self._taken[job.job_id] = None

    def kept_aside(self) -> set[str]:
        """The ids of the jobs that are taken or deferred."""
        return self._taken.keys() | self._deferred.keys()

    # --- lines and lanes

    def _line(self, type: str, queue: str) -> _Line:
        lines = self._lines.setdefault(type, {})
        if (line := lines.get(queue)) is None:
            line = lines[queue] = _Line(type, queue, self._size, self._new_horizon)
            self._size.windows += 1
        return line

    def _windows(self, types: Collection[str]) -> Iterator[tuple[_Line, ReadyWindow]]:
        for type in dict.fromkeys(types):
            if ("type", type) in self._paused or type not in self._lines:
                continue
            lines = self._lines[type]
            for queue, line in list(lines.items()):
                for key in [*line.open_keys]:
                    self._drop_used_lane(line, key)
                if line.window.is_used_up and not line.lanes:
                    del lines[queue]
                    self._size.windows -= 1
                elif ("queue", queue) not in self._paused:
                    for window in line.windows():
                        yield line, window
            if not lines:
                del self._lines[type]

    def _children_of(self, type: str) -> ReadyWindow:
        if (window := self._children.get(type)) is None:
            place = ("children", type)
            window = ReadyWindow(place, by_branch, self._size, self._new_horizon)
            self._children[type] = window
        return window

    def _hold_child(self, job: WaitingJob) -> None:
        if (held := self._held_children.get(job.type)) is None:
            held = ReadyWindow(("held children", job.type), by_branch, self._size, None)
            self._held_children[job.type] = held
        held.put(job)

    def _take(self, job: WaitingJob) -> None:
        self._discard(job)
        self._taken[job.job_id] = job

    def _park(self, line: _Line, window: ReadyWindow, job: WaitingJob) -> None:
        """The key of *job* is full: let it wait in a lane, with the next ones of that key."""
        key = job.key
        assert key is not None
        line.open_keys.discard(key)
        if window is not line.window:
            return  # it is in its lane
        if (lane := line.lanes.get(key)) is None:
            place = ("lane", line.type, line.queue, key)
            lane = line.lanes[key] = ReadyWindow(place, by_rank, self._lane_size, None)
            self._lane_size.windows += 1
            self._lines_of_key.setdefault(key, set()).add((line.type, line.queue))
        window.discard(job.job_id)
        lane.put(job)

    def _drop_used_lane(self, line: _Line, key: str) -> None:
        if line.lanes[key].is_used_up:
            del line.lanes[key]
            self._lane_size.windows -= 1
            line.open_keys.discard(key)
            lines = self._lines_of_key[key]
            lines.discard((line.type, line.queue))
            if not lines:
                del self._lines_of_key[key]
