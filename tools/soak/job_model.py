"""Every way in which workers, crashes, pauses and people can meet, tried against the decisions.

An explicit-state model check (reliability.md B1): breadth first through all that can happen to a
few jobs, where each step is decided by eventjobs.domain.decisions and folded by evolve. What is
modelled is only what surrounds them: workers that hold an attempt number and may use it at any
time later, leases, a service that is restarted, and people.
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

from .job_rules import NEW, Life, judged

NOW_US = 1_000_000
LATER_US = 2_000_000
#: Ticks without a sign of life after which an attempt may be taken from its worker.
LEASE = 2
#: No decision depends on where and when something was written down, nor on how it was put.
PLACE = {"born", "created_us", "version", "position", "updated_us", "started_us", "finished_us"}
WORDS = {"error": None, "worker": None}


class Decisions(NamedTuple):
    """What is checked: the service's own, unless a test puts a wrong one in."""

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
    """How many there are of everything. Besides the workers *elsewhere*, the service runs jobs."""

    elsewhere: int = 1
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
    """What a worker believes: that it holds this attempt. It may be wrong by now."""

    job: int
    attempt: int
    told_to_stop: bool


class World(NamedTuple):
    """One state of everything. *jobs* are numbers of folded jobs, each with its life so far."""

    jobs: tuple[int, ...]
    #: by worker; the first one runs in the service and dies with it
    held: tuple[Held | None, ...]
    #: by job, ticks until its lease is over
    leases: tuple[int, ...]
    #: an attempt that was found to be lost, and is about to be ended
    lost: tuple[int, int] | None
    #: how many cancels, retries, releases, restarts, hides, late reports and handovers are left
    left: tuple[int, ...]


CANCELS, RETRIES, RELEASES, RESTARTS, HIDES, LATES, HANDOVERS = range(7)
#: Steps that only people take: nothing may depend on them to come to an end.
BY_PEOPLE = {"cancel", "retry", "hide"}
Step = tuple[str, World]


class Model:
    """The transitions between worlds."""

    def __init__(self, bounds: Bounds, decisions: Decisions | None = None) -> None:
        self._bounds = bounds
        self._decide = decisions or Decisions()
        self._jobs: list[tuple[Job, Life]] = []
        self._numbers: dict[Any, int] = {}
        self._known: dict[Any, int | None] = {}

    def first(self) -> World:
        submitted = JobSubmitted(JobSpec("t", max_attempts=self._bounds.max_attempts))
        job = self._number(evolve(None, _recorded(submitted)), NEW)
        bounds = self._bounds
        left = bounds[3:]
        workers = bounds.elsewhere + 1
        return World((job,) * bounds.jobs, (None,) * workers, (0,) * bounds.jobs, None, left)

    def finished(self, world: World) -> bool:
        return all(self._jobs[each][0].finished for each in world.jobs)

    def steps(self, world: World) -> Iterator[Step]:
        """All that can happen next. Raises Violation."""
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
            yield "restart", self._restarted(world)

    # --- workers

    def _by_worker(self, world: World, worker: int) -> Iterator[Step]:
        held = world.held[worker]
        if held is None:
            for number in range(len(world.jobs)):
                yield from self._claim(world, worker, number)
            return
        # It crashed, or got its answer: nothing more is heard of it. Until then it may say
        # anything, again and again: its answers were lost, or it was stopped for a while.
        # What runs in the service does not crash by itself.
        number, attempt = held.job, held.attempt
        if worker or not self._holds(world, held):
            yield f"forget {held.attempt}", _holding(world, worker, None)
        yield from self._heartbeat(world, worker, held)
        if not worker and world.left[HANDOVERS]:
            yield from self._handed_over(world, held)
        for verb, what in (
            ("complete", "complete"),
            ("fail", "fail"),
            ("give up", "fail for good"),
            *((("release", "release"),) if world.left[RELEASES] else ()),
            *((("stopped", "stopped"),) if held.told_to_stop else ()),
        ):
            after = self._told(world, number, what, attempt)
            if after is not None:
                spent = RELEASES if verb == "release" and after.jobs != world.jobs else None
                yield f"{verb} {attempt}", _spent(after, spent)

    def _claim(self, world: World, worker: int, number: int) -> Iterator[Step]:
        lease = float(LEASE) if worker else None
        after = self._after(world.jobs[number], "start", f"w{worker}", lease)
        if after is not None:
            attempt = self._jobs[after][0].attempt
            claimed = self._with_job(world, number, after, LEASE if worker else 0)
            name = f"claim {attempt}" if worker else f"claim {attempt} here"
            yield name, _holding(claimed, worker, Held(number, attempt, False))

    def _handed_over(self, world: World, held: Held) -> Iterator[Step]:
        """What runs in the service is left to somebody elsewhere, who can be lost from then on."""
        after = self._after(world.jobs[held.job], "hand over", held.attempt)
        for taker in range(1, len(world.held)):
            if after is not None and world.held[taker] is None:
                given = self._with_job(world, held.job, after, LEASE)
                given = _holding(_holding(given, 0, None), taker, held)
                yield f"hand over {held.attempt}", _spent(given, HANDOVERS)

    def _heartbeat(self, world: World, worker: int, held: Held) -> Iterator[Step]:
        after = self._told(world, held.job, "report", held.attempt)
        after = after or world
        job = self._jobs[after.jobs[held.job]][0]
        if not self._holds(after, held):
            yield f"heartbeat {held.attempt}", _holding(after, worker, None)  # it was told to stop
            return
        asked = job.cancel_requested_us is not None
        renewed = self._with_job(after, held.job, after.jobs[held.job], LEASE if worker else 0)
        yield (
            f"heartbeat {held.attempt}",
            _holding(renewed, worker, held._replace(told_to_stop=asked)),
        )

    def _holds(self, world: World, held: Held) -> bool:
        job = self._jobs[world.jobs[held.job]][0]
        return job.status == Status.RUNNING and job.attempt == held.attempt

    def _told(self, world: World, number: int, what: str, attempt: int) -> World | None:
        """A worker's report, taken or put on record as late; None when nothing comes of it."""
        after = self._after(world.jobs[number], what, attempt)
        if after is not None:
            return self._with_job(world, number, after)
        late = self._after(world.jobs[number], "refuse", attempt) if world.left[LATES] else None
        return None if late is None else _spent(self._with_job(world, number, late), LATES)

    # --- the service

    def _by_service(self, world: World, number: int) -> Iterator[Step]:
        job = self._jobs[world.jobs[number]][0]
        if job.status == Status.QUEUED and job.due_us > NOW_US:
            due = self._number(replace(job, due_us=NOW_US), self._jobs[world.jobs[number]][1])
            yield "due", self._with_job(world, number, due)
        over = job.status == Status.RUNNING and not world.leases[number]
        if over and _elsewhere(job) and world.lost is None:
            yield f"expire {job.attempt}", world._replace(lost=(number, job.attempt))

    def _rescue(self, world: World, number: int, attempt: int) -> Iterator[Step]:
        """The attempt that was found to be lost is ended; it may have ended by itself since."""
        after = self._after(world.jobs[number], "lost", attempt)
        ended = world if after is None else self._with_job(world, number, after)
        yield f"rescue {attempt}", ended._replace(lost=None)

    def _restarted(self, world: World) -> World:
        """What ran in the service is ended; leases are known no more, and begin anew."""
        world = _spent(_holding(world, 0, None), RESTARTS)._replace(lost=None)
        for number, each in enumerate(world.jobs):
            job = self._jobs[each][0]
            if job.status != Status.RUNNING:
                continue
            if _elsewhere(job):
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
                    yield verb, _spent(self._with_job(world, number, after), what)

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
        """*job* without the places and times of what happened, as a number of its own."""
        told = ("cancel_requested_us", "expired_us")
        changes: Any = dict.fromkeys(PLACE, 0) | WORDS | {"late": tuple(sorted(job.late))}
        changes |= {name: None if getattr(job, name) is None else 1 for name in told}
        plain = replace(job, **changes)
        key = (*(getattr(plain, each.name) for each in fields(plain)), life)
        if key not in self._numbers:
            self._numbers[key] = len(self._jobs)
            self._jobs.append((plain, life))
        return self._numbers[key]

    def _after(self, number: int, what: str, *told: Any) -> int | None:
        """The job after a decision; None when it was refused, or changed nothing."""
        key = number, what, told
        if key not in self._known:
            self._known[key] = self._decided(number, what, told)
        return self._known[key]

    def _decided(self, number: int, what: str, told: tuple[Any, ...]) -> int | None:
        job, life = self._jobs[number]
        try:
            event = self._decision(job, what, told)
        except Rejected:
            return None
        if event is None:
            return None
        changed = evolve(job, _recorded(event))
        return self._number(changed, judged(life, event, what, changed))

    def _decision(self, job: Job, what: str, told: tuple[Any, ...]) -> Event | None:
        """What *what*, with what was *told*, comes to. Raises Rejected."""
        decide = self._decide
        match what, *told:
            case "start", worker, lease_s:
                made = decide.start(job, NOW_US, worker, lease_s)
            case "hand over", attempt:
                made = decide.hand_over(job, AttemptHandedOver(attempt, "taker", float(LEASE)))
            case "report", attempt:
                made = decide.report(job, ProgressReported(attempt))
            case "complete", attempt:
                made = decide.complete(job, attempt, None)
            case "fail", attempt:
                made = decide.fail(job, AttemptFailed(attempt, "e", True, LATER_US))
            case "fail for good", attempt:
                made = decide.fail(job, AttemptFailed(attempt, "e", False))
            case "lost", attempt:  # as Settlement.lost
                made = decide.fail(job, AttemptFailed(attempt, "worker_lost", True, NOW_US))
            case "release", attempt:
                made = decide.release(job, attempt, "drained")
            case "stopped", attempt:
                made = decide.stopped(job, attempt)
            case "refuse", attempt:
                made = decide.refuse(job, attempt, "any")
            case "cancel" | "retry", *_:
                made = (decide.cancel if what == "cancel" else decide.retry)(job)
            case _:
                made = decide.expire(job, "deleted")
        event: Event | None = made
        return event


def _elsewhere(job: Job) -> bool:
    """Whether who holds it outlives the service, and is lost when it is silent."""
    return job.lease_s is not None or job.silence_s is not None


def _recorded(event: Event) -> Recorded:
    return Recorded(0, "", 0, NOW_US, "", event, "", b"{}", b"{}")


def _holding(world: World, worker: int, held: Held | None) -> World:
    return world._replace(held=(*world.held[:worker], held, *world.held[worker + 1 :]))


def _spent(world: World, what: int | None) -> World:
    if what is None:
        return world
    left = list(world.left)
    left[what] -= 1
    return world._replace(left=tuple(left))


def _in_order(world: World) -> World:
    """One of the worlds that differ only in which worker, or which job, is called the first."""
    here, *elsewhere = world.held
    held = (here, *sorted(elsewhere, key=_or_empty))
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
