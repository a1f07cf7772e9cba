"""Strategies of hypothesis: JSON, events of every class, and histories that decisions allow."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from eventjobs.domain import decisions
from eventjobs.domain import events as e
from eventjobs.domain.codec import encode
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.errors import Rejected
from tests.support.clock import SECOND, FakeClock
from tests.support.memory_log import MemoryLog

START_US = 1_735_689_600 * SECOND

#: Everything UTF-8 can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**63), 2**64 - 1)
small = st.integers(0, 2**53)
numbers = integers | st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
maybe_text = st.none() | texts

artifacts = st.builds(Artifact, texts, texts, small, texts)
specs = st.builds(
    JobSpec,
    type=texts,
    payload=json_values,
    tags=st.lists(texts, max_size=3).map(tuple),
    owner=maybe_text,
    priority=st.integers(-1000, 1000),
    run_at_us=st.none() | small,
    max_attempts=small,
    timeout_s=st.none() | st.floats(0, 1e9),
    stall_timeout_s=st.none() | st.floats(0, 1e9),
    retry_delay_s=st.none() | st.floats(0, 1e9),
    artifacts=st.lists(artifacts, max_size=2).map(tuple),
    queue=maybe_text,
    concurrency_key=maybe_text,
    ttl_s=st.none() | st.floats(0, 1e9),
    after=st.lists(texts, max_size=2).map(tuple),
    after_failure=st.sampled_from([None, "run"]),
    parent=maybe_text,
    sensitive=st.lists(texts, max_size=2).map(tuple),
    hooks=st.lists(texts, max_size=2).map(tuple),
)
#: A strategy for each class of events.
BY_CLASS: dict[type[Any], st.SearchStrategy[e.Event]] = {
    e.JobSubmitted: st.builds(e.JobSubmitted, specs),
    e.JobImported: st.builds(
        e.JobImported,
        texts,
        st.sampled_from(sorted(e.IMPORTED_STATUSES)),
        texts,
        small,
        small,
        st.none() | small,
        st.none() | small,
        maybe_text,
        st.none() | small,
        json_values,
    ),
    e.AttemptStarted: st.builds(e.AttemptStarted, small, texts, st.none() | st.floats(0, 1e9)),
    e.AttemptHandedOver: st.builds(
        e.AttemptHandedOver, small, texts, st.floats(0, 1e9), maybe_text
    ),
    e.ProgressReported: st.builds(
        e.ProgressReported,
        small,
        st.none() | numbers,
        st.none() | numbers,
        maybe_text,
        maybe_text,
        json_values,
    ),
    e.StepCompleted: st.builds(e.StepCompleted, small, texts, small, json_values, maybe_text),
    e.BreakerChanged: st.builds(e.BreakerChanged, small, texts, texts, small, st.none() | small),
    e.LogWritten: st.builds(e.LogWritten, small, texts, maybe_text, json_values),
    e.ArtifactStored: st.builds(e.ArtifactStored, small, texts, texts, small, texts),
    e.AttemptFailed: st.builds(
        e.AttemptFailed, small, texts, st.booleans(), st.none() | small, maybe_text, json_values
    ),
    e.AttemptReleased: st.builds(e.AttemptReleased, small, texts),
    e.JobCompleted: st.builds(e.JobCompleted, small, json_values, json_values),
    e.CancelRequested: st.builds(e.CancelRequested, maybe_text),
    e.JobCancelled: st.builds(e.JobCancelled, st.none() | small, maybe_text),
    e.JobRetried: st.builds(e.JobRetried, maybe_text, maybe_text, st.none() | st.just(True)),
    e.JobExpired: st.builds(e.JobExpired, texts),
    e.LateReportRefused: st.builds(e.LateReportRefused, small, texts),
    e.HookCompleted: st.builds(e.HookCompleted, texts, maybe_text, maybe_text),
    e.HookFailed: st.builds(e.HookFailed, texts, texts, maybe_text),
    e.Paused: st.builds(e.Paused, texts, texts, maybe_text),
    e.Resumed: st.builds(e.Resumed, texts, texts),
    e.WebhookAdded: st.builds(
        e.WebhookAdded,
        st.lists(texts, max_size=2).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
        maybe_text,
        maybe_text,
    ),
    e.WebhookRemoved: st.builds(e.WebhookRemoved, maybe_text),
    e.KeyCreated: st.builds(
        e.KeyCreated,
        texts,
        texts,
        texts,
        st.lists(texts, max_size=2).map(tuple),
        st.none() | small,
    ),
    e.KeyRevoked: st.builds(e.KeyRevoked, maybe_text),
}
events: st.SearchStrategy[e.Event] = st.one_of(*BY_CLASS.values())


# --- histories

#: A command on a job, from the job, the time and a drawn number.
Command = Callable[[Job | None, int, int], e.Event | None]


def _attempt(job: Job | None) -> int:
    return job.attempt if job is not None else 0


def _failure(job: Job | None, now_us: int, number: int) -> e.AttemptFailed:
    retry_at_us = None if number % 4 == 0 else now_us + number % 3 * SECOND
    return e.AttemptFailed(_attempt(job), f"code_{number % 2}", number % 5 != 0, retry_at_us, "why")


def _progress(job: Job | None, number: int) -> e.ProgressReported:
    stage = (None, "read", "wörk", "write")[number % 4]
    total = (None, 0, 10, 7.5)[number % 5 % 4]
    message = (None, "", 'a "message"')[number % 3]
    data = (None, {"n": number}, [1.5, "\0"])[number % 7 % 3]
    return e.ProgressReported(_attempt(job), number % 12, total, stage, message, data)


def _artifact(job: Job | None, number: int) -> e.ArtifactStored:
    return e.ArtifactStored(_attempt(job), f"file {number % 2}", "ab" * 32, number, "text/csv")


RESULTS: tuple[object, ...] = (None, {"rows": 3}, [1, 2.5, "\u0000"], "ü", {})


def _import_of(number: int) -> e.JobImported:
    status = ("queued", "running", "completed", "failed", "cancelled")[number % 5]
    done = {"progress": number * 5} if number % 2 else {}
    record = {"status": status, "result": RESULTS[number % 5], "payload": {"n": 1}, **done}
    finished_us = START_US - SECOND if number % 5 > 1 else None
    times = START_US - 60 * SECOND, START_US - number * SECOND, None, finished_us
    owner = (None, "ann")[number % 2]
    return e.JobImported("csv", status, "file", *times, owner, number % 4 or None, record)


#: What a running job does is tried more often: without it there is little to see.
COMMANDS: dict[str, Command] = {
    "start": lambda job, now, n: decisions.start(
        job, now, f"worker-{n % 2}", 30.0 if n % 3 else None
    ),
    "start it": lambda job, now, n: decisions.start(job, now, f"worker-{n % 2}"),
    "hand over": lambda job, now, n: decisions.hand_over(
        job, e.AttemptHandedOver(_attempt(job), f"service {n % 2}", 30.0, None if n % 3 else "url")
    ),
    "progress": lambda job, now, n: decisions.report(job, _progress(job, n)),
    "more progress": lambda job, now, n: decisions.report(job, _progress(job, n)),
    "log": lambda job, now, n: decisions.report(job, e.LogWritten(_attempt(job), "info", "line")),
    "step": lambda job, now, n: decisions.report(
        job,
        e.StepCompleted(
            _attempt(job), f"step {n % 3}", n % 3, {"n": n}, None if n % 5 else f"step {n % 2}"
        ),
    ),
    "breaker": lambda job, now, n: decisions.report(
        job, e.BreakerChanged(_attempt(job), "llm", ("open", "closed")[n % 2], n, now + n)
    ),
    "late": lambda job, now, n: decisions.refuse(job, _attempt(job) - n % 2, "complete"),
    "artifact": lambda job, now, n: decisions.report(job, _artifact(job, n)),
    "complete": lambda job, now, n: decisions.complete(
        job, _attempt(job), RESULTS[n % 5], [{"issue": n}] if n % 3 == 0 else None
    ),
    "fail": lambda job, now, n: decisions.fail(job, _failure(job, now, n)),
    "release": lambda job, now, n: decisions.release(job, _attempt(job), "shutdown"),
    "cancel": lambda job, now, n: decisions.cancel(job, None if n % 2 else "because"),
    "stopped": lambda job, now, n: (
        decisions.cancel_attempt(job, _attempt(job)) if job and job.cancel_requested_us else None
    ),
    "retry": lambda job, now, n: decisions.retry(
        job, None, from_step="step 1" if n % 3 == 0 else None, restart=n % 3 == 1
    ),
    "import": lambda job, now, n: decisions.import_job(job, _import_of(n), newest=n % 3 > 0),
    "hook made": lambda job, now, n: decisions.end_hook(
        job, e.HookCompleted("story" if n % 2 else "mail", f"record {n}", None)
    ),
    "hook failed": lambda job, now, n: decisions.end_hook(
        job, e.HookFailed("story" if n % 2 else "mail", f"code_{n}", None)
    ),
    "expire": lambda job, now, n: decisions.expire(job, "ttl"),
}


def job_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


submissions = st.builds(
    lambda type, tags, owner, priority, late_s, max_attempts, payload, ttl_s, ties, place: JobSpec(
        type,
        payload,
        tags=tuple(tags),
        owner=owner,
        priority=priority,
        run_at_us=None if late_s is None else START_US + late_s * SECOND,
        max_attempts=max_attempts,
        artifacts=(Artifact("in", "cd" * 32, 9),) if max_attempts == 3 else (),
        ttl_s=ttl_s,
        queue=place[0],
        concurrency_key=place[1],
        after=tuple(map(job_id, ties[0])),
        after_failure=ties[1],
        parent=None if ties[2] is None else job_id(ties[2]),
        hooks=("story", "mail") if type == "csv" else (),
    ),
    st.sampled_from(["csv", "render", "mail"]),
    st.lists(st.sampled_from(["a", "b", "ü", 'q"']), max_size=3),
    st.sampled_from([None, "ann", "bob"]),
    st.integers(-10, 10),
    st.none() | st.integers(-60, 60),
    st.integers(1, 3),
    st.sampled_from([None, {"frames": 3}, ["\0", 1e300], 'text "quoted"', {}]),
    st.sampled_from([None, None, 0, 60.5]),
    # Of jobs that may come later or never, or be the job itself: the views accept it.
    st.tuples(
        st.just([]) | st.lists(st.integers(0, 5), max_size=3, unique=True),
        st.sampled_from([None, "run"]),
        st.none() | st.integers(0, 5),
    ),
    st.tuples(st.sampled_from([None, None, "q"]), st.sampled_from([None, "k", "l"])),
)
_steps = st.tuples(
    st.integers(0, 5), st.sampled_from(list(COMMANDS)), st.integers(0, 60), st.integers(0, 20)
)


@st.composite
def histories(draw: st.DrawFn, jobs_max: int = 5, steps_max: int = 60) -> list[Recorded]:
    """A whole log of a few jobs; each is submitted, or imported, by its first step."""
    specs = draw(st.lists(submissions, min_size=1, max_size=jobs_max))
    steps = draw(st.lists(_steps, min_size=1, max_size=steps_max))
    return play(specs, steps)


def play(specs: Sequence[JobSpec], steps: Sequence[tuple[int, str, int, int]]) -> list[Recorded]:
    """The log after *steps* of (job, command, number, seconds)."""
    jobs: dict[str, Job] = {}
    log: list[Recorded] = []
    now_us = START_US
    for which, command, number, seconds in steps:
        now_us += seconds * SECOND
        chosen = which % len(specs)
        job = jobs.get(job_id(chosen))
        try:
            event = (
                decisions.submit(None, specs[chosen])
                if job is None and command != "import"
                else COMMANDS[command](job, now_us, number)
            )
        except Rejected:
            continue
        if event is not None:
            recorded = record(event, job_id(chosen), job, len(log) + 1, now_us)
            jobs[recorded.job_id] = evolve(job, recorded)
            log.append(recorded)
    return log


def record(event: e.Event, job_id: str, job: Job | None, position: int, at_us: int) -> Recorded:
    version = job.version if job is not None else 0
    return Recorded(position, job_id, version + 1, at_us, "tester", event, *encode(event))


async def log_of(history: Sequence[Recorded], clock: FakeClock) -> MemoryLog:
    """A log with *history*; the clock is set to its last event."""
    log = MemoryLog(clock)
    for each in history:
        clock.jump_wall((each.at_us - clock.now_us()) / SECOND)
        appended = await log.append(each.job_id, each.version - 1, each.event, actor=each.actor)
        assert appended == each
    return log
