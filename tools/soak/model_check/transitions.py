"""The states of a few jobs, their workers, the service and people, and the steps between them.

Each step is decided by eventjobs.domain.decisions and folded by evolve, as in the service. Modelled
is only what surrounds the decisions: workers that hold an attempt number and may use it at any
later time, leases, a service that is restarted, and people. search.py goes through all states.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

from eventjobs.domain.decisions import (
    cancel,
    cancel_attempt,
    complete,
    expire,
    fail,
    hand_over,
    refuse,
    release,
    report,
    retry,
    start,
)
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptHandedOver,
    Event,
    JobSubmitted,
    ProgressReported,
)
from eventjobs.domain.job import Job, Status, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Rejected

from .rules import NEW, Life, judge

NOW_US = 1_000_000
LATER_US = 2_000_000
#: Ticks of a lease: without a heartbeat the attempt is lost after them.
LEASE = 2
#: Fields on which no decision depends: positions and times, and texts.
PLACE = {"born", "created_us", "version", "position", "updated_us", "started_us", "finished_us"}
WORDS = {"error": None, "worker": None}


class Decisions(NamedTuple):
    """The decisions that are checked: those of the service, unless a test replaces some."""

    start: Callable[..., Any] = start
    hand_over: Callable[..., Any] = hand_over
    report: Callable[..., Any] = report
    complete: Callable[..., Any] = complete
    fail: Callable[..., Any] = fail
    release: Callable[..., Any] = release
    stopped: Callable[..., Any] = cancel_attempt
    refuse: Callable[..., Any] = refuse
    cancel: Callable[..., Any] = cancel
    retry: Callable[..., Any] = retry
    expire: Callable[..., Any] = expire


class Bounds(NamedTuple):
    """The numbers of jobs, workers and steps. The service runs jobs, too, as worker 0."""

    remote_workers: int = 1
    jobs: int = 1
    max_attempts: int = 2
    cancels: int = 0
    retries: int = 0
    releases: int = 0
    restarts: int = 0
    hides: int = 0
    lates: int = 0
    handovers: int = 0


class Held(NamedTuple):
    """An attempt that a worker believes to hold; it may have lost it."""

    job: int
    attempt: int
    stopping: bool


class World(NamedTuple):
    """One state. *jobs* are numbers of folded jobs with their lives (Model._jobs)."""

    jobs: tuple[int, ...]
    #: by worker; the first one runs in the service and dies with it
    held: tuple[Held | None, ...]
    #: by job, ticks until its lease expires
    leases: tuple[int, ...]
    #: a lost attempt (job, number) that is about to be ended
    lost: tuple[int, int] | None
    #: numbers of cancels, retries, releases, restarts, hides, late reports and handovers left
    left: tuple[int, ...]


CANCELS, RETRIES, RELEASES, RESTARTS, HIDES, LATES, HANDOVERS = range(7)
#: Steps of people. Jobs must end without them.
BY_PEOPLE = {"cancel", "retry", "hide"}
Step = tuple[str, World]


class Model:
    """The transitions between worlds."""

    def __init__(self, bounds: Bounds, decisions: Decisions | None = None) -> None:
        self._bounds = bounds
        self._decide = decisions or Decisions()
        self._jobs: list[tuple[Job, Life]] = []
        self._numbers: dict[Any, int] = {}
        self._decided: dict[Any, int | None] = {}

    def first(self) -> World:
        submitted = JobSubmitted(JobSpec("t", max_attempts=self._bounds.max_attempts))
        job = self._number(evolve(None, _as_recorded(submitted)), NEW)
        bounds = self._bounds
        left = bounds[3:]
        workers = bounds.remote_workers + 1
        return World((job,) * bounds.jobs, (None,) * workers, (0,) * bounds.jobs, None, left)

    def is_finished(self, world: World) -> bool:
        return all(self._jobs[each][0].finished for each in world.jobs)

    def steps(self, world: World) -> Iterator[Step]:
        """The steps that are possible in *world*. Raises Violation."""
        for worker in range(len(world.held)):
            yield from self._by_worker(world, worker)
        for number in range(len(world.jobs)):
            yield from self._by_service(world, number)
            yield from self._by_people(world, number)
        if any(world.leases):
            yield "tick", world._replace(leases=tuple(max(0, each - 1) for each in world.leases))
        if world.lost is not None:
            yield from self._rescue(world, *world.lost)
        if world.left[RESTARTS]:
            yield "restart", self._restart(world)

    # --- workers

    def _by_worker(self, world: World, worker: int) -> Iterator[Step]:
        held = world.held[worker]
        if held is None:
            for number in range(len(world.jobs)):
                yield from self._claim(world, worker, number)
            return
        # A worker forgets its attempt when it crashes, or gets a response. Before, it may send any
        # report, repeatedly: responses get lost, and workers pause. The service does not crash
        # by itself.
        number, attempt = held.job, held.attempt
        if worker or not self._holds(world, held):
            yield f"forget {held.attempt}", _hold(world, worker, None)
        yield from self._heartbeat(world, worker, held)
        if not worker and world.left[HANDOVERS]:
            yield from self._hand_over(world, held)
        for verb, what in (
            ("complete", "complete"),
            ("fail", "fail"),
            ("give up", "fail for good"),
            *((("release", "release"),) if world.left[RELEASES] else ()),
            *((("stopped", "stopped"),) if held.stopping else ()),
        ):
            after = self._report(world, number, what, attempt)
            if after is not None:
                spent = RELEASES if verb == "release" and after.jobs != world.jobs else None
                yield f"{verb} {attempt}", _spend(after, spent)

    def _claim(self, world: World, worker: int, number: int) -> Iterator[Step]:
        lease = float(LEASE) if worker else None
        after = self._after(world.jobs[number], "start", f"w{worker}", lease)
        if after is not None:
            attempt = self._jobs[after][0].attempt
            claimed = self._with_job(world, number, after, LEASE if worker else 0)
            name = f"claim {attempt}" if worker else f"claim {attempt} here"
            yield name, _hold(claimed, worker, Held(number, attempt, False))

    def _hand_over(self, world: World, held: Held) -> Iterator[Step]:
        """An attempt of the service is handed over to a remote worker, which can be lost."""
        after = self._after(world.jobs[held.job], "hand over", held.attempt)
        for taker in range(1, len(world.held)):
            if after is not None and world.held[taker] is None:
                changed = self._with_job(world, held.job, after, LEASE)
                changed = _hold(_hold(changed, 0, None), taker, held)
                yield f"hand over {held.attempt}", _spend(changed, HANDOVERS)

    def _heartbeat(self, world: World, worker: int, held: Held) -> Iterator[Step]:
        after = self._report(world, held.job, "report", held.attempt)
        after = after or world
        job = self._jobs[after.jobs[held.job]][0]
        if not self._holds(after, held):
            yield f"heartbeat {held.attempt}", _hold(after, worker, None)  # 409 stale_attempt
            return
        stopping = job.cancel_requested_us is not None
        renewed = self._with_job(after, held.job, after.jobs[held.job], LEASE if worker else 0)
        yield (
            f"heartbeat {held.attempt}",
            _hold(renewed, worker, held._replace(stopping=stopping)),
        )

    def _holds(self, world: World, held: Held) -> bool:
        job = self._jobs[world.jobs[held.job]][0]
        return job.status == Status.RUNNING and job.attempt == held.attempt

    def _report(self, world: World, number: int, what: str, attempt: int) -> World | None:
        """A worker's report, accepted or recorded as late; None when it changes nothing."""
        after = self._after(world.jobs[number], what, attempt)
        if after is not None:
            return self._with_job(world, number, after)
        late = self._after(world.jobs[number], "refuse", attempt) if world.left[LATES] else None
        return None if late is None else _spend(self._with_job(world, number, late), LATES)

    # --- the service

    def _by_service(self, world: World, number: int) -> Iterator[Step]:
        job = self._jobs[world.jobs[number]][0]
        if job.status == Status.QUEUED and job.due_us > NOW_US:
            due = self._number(replace(job, due_us=NOW_US), self._jobs[world.jobs[number]][1])
            yield "due", self._with_job(world, number, due)
        expired = job.status == Status.RUNNING and not world.leases[number]
        if expired and _is_remote(job) and world.lost is None:
            yield f"expire {job.attempt}", world._replace(lost=(number, job.attempt))

    def _rescue(self, world: World, number: int, attempt: int) -> Iterator[Step]:
        """A lost attempt is ended, unless it has ended since its lease expired."""
        after = self._after(world.jobs[number], "lost", attempt)
        ended = world if after is None else self._with_job(world, number, after)
        yield f"rescue {attempt}", ended._replace(lost=None)

    def _restart(self, world: World) -> World:
        """Attempts of the service are lost; the leases of remote workers begin anew."""
        world = _spend(_hold(world, 0, None), RESTARTS)._replace(lost=None)
        for number, each in enumerate(world.jobs):
            job = self._jobs[each][0]
            if job.status != Status.RUNNING:
                continue
            if _is_remote(job):
                world = self._with_job(world, number, each, LEASE)
            elif (after := self._after(each, "lost", job.attempt)) is not None:
                world = self._with_job(world, number, after)
        return world

    # --- people

    def _by_people(self, world: World, number: int) -> Iterator[Step]:
        for verb, what in (("cancel", CANCELS), ("retry", RETRIES), ("hide", HIDES)):
            if world.left[what]:
                after = self._after(world.jobs[number], verb)
                if after is not None:
                    yield verb, _spend(self._with_job(world, number, after), what)

    # --- jobs

    def _with_job(self, world: World, number: int, job: int, lease: int | None = None) -> World:
        jobs = (*world.jobs[:number], job, *world.jobs[number + 1 :])
        if self._jobs[job][0].status != Status.RUNNING:
            lease = 0
        if lease is None:
            return world._replace(jobs=jobs)
        leases = (*world.leases[:number], lease, *world.leases[number + 1 :])
        return world._replace(jobs=jobs, leases=leases)

    def _number(self, job: Job, life: Life) -> int:
        """The number of *job*, which disregards positions, times and texts."""
        marks = ("cancel_requested_us", "expired_us")
        changes: Any = dict.fromkeys(PLACE, 0) | WORDS | {"late": tuple(sorted(job.late))}
        changes |= {name: None if getattr(job, name) is None else 1 for name in marks}
        plain = replace(job, **changes)
        key = (*(getattr(plain, each.name) for each in fields(plain)), life)
        if key not in self._numbers:
            self._numbers[key] = len(self._jobs)
            self._jobs.append((plain, life))
        return self._numbers[key]

    def _after(self, number: int, what: str, *arguments: Any) -> int | None:
        """The job after a decision; None when it was refused, or changed nothing."""
        key = number, what, arguments
        if key not in self._decided:
            self._decided[key] = self._decide_and_judge(number, what, arguments)
        return self._decided[key]

    def _decide_and_judge(self, number: int, what: str, arguments: tuple[Any, ...]) -> int | None:
        job, life = self._jobs[number]
        try:
            event = self._decision(job, what, arguments)
        except Rejected:
            return None
        if event is None:
            return None
        changed = evolve(job, _as_recorded(event))
        return self._number(changed, judge(life, event, what, changed))

    def _decision(self, job: Job, what: str, arguments: tuple[Any, ...]) -> Event | None:
        """The event of the decision *what*. Raises Rejected."""
        decide = self._decide
        event: Event | None
        match what, *arguments:
            case "start", worker, lease_s:
                event = decide.start(job, NOW_US, worker, lease_s)
            case "hand over", attempt:
                event = decide.hand_over(job, AttemptHandedOver(attempt, "taker", float(LEASE)))
            case "report", attempt:
                event = decide.report(job, ProgressReported(attempt))
            case "complete", attempt:
                event = decide.complete(job, attempt, None)
            case "fail", attempt:
                event = decide.fail(job, AttemptFailed(attempt, "e", True, LATER_US))
            case "fail for good", attempt:
                event = decide.fail(job, AttemptFailed(attempt, "e", False))
            case "lost", attempt:  # as Settlement.lost
                event = decide.fail(job, AttemptFailed(attempt, "worker_lost", True, NOW_US))
            case "release", attempt:
                event = decide.release(job, attempt, "drained")
            case "stopped", attempt:
                event = decide.stopped(job, attempt)
            case "refuse", attempt:
                event = decide.refuse(job, attempt, "any")
            case "cancel" | "retry", *_:
                event = (decide.cancel if what == "cancel" else decide.retry)(job)
            case _:
                event = decide.expire(job, "deleted")
        return event


def _is_remote(job: Job) -> bool:
    """Whether its worker outlives the service, and is lost when its lease expires."""
    return job.lease_s is not None or job.silence_s is not None


def _as_recorded(event: Event) -> Recorded:
    return Recorded(0, "", 0, NOW_US, "", event, "", b"{}", b"{}")


def _hold(world: World, worker: int, held: Held | None) -> World:
    return world._replace(held=(*world.held[:worker], held, *world.held[worker + 1 :]))


def _spend(world: World, what: int | None) -> World:
    if what is None:
        return world
    left = list(world.left)
    left[what] -= 1
    return world._replace(left=tuple(left))


def canonical(world: World) -> World:
    """The representative of the worlds that differ only in the order of workers and jobs."""
    here, *remote = world.held
    held = (here, *sorted(remote, key=_or_empty))
    jobs, leases, lost = world.jobs, world.leases, world.lost
    order = sorted(range(len(jobs)), key=lambda each: (jobs[each], leases[each]))
    if order != sorted(order):
        place = {old: new for new, old in enumerate(order)}
        moved = [each and each._replace(job=place[each.job]) for each in held]
        held = (moved[0], *sorted(moved[1:], key=_or_empty))
        lost = lost and (place[lost[0]], lost[1])
        jobs, leases = tuple(jobs[each] for each in order), tuple(leases[each] for each in order)
    return World(jobs, held, leases, lost, world.left)


def _or_empty(held: Held | None) -> tuple[Any, ...]:
    return held or ()
