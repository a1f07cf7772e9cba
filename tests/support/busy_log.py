"""A log of everything that a service records, in which all views change all the time."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from eventjobs.domain import events as e
from eventjobs.domain.codec import encode
from eventjobs.domain.hook_results import hook_type
from eventjobs.domain.ids import delivery_id, hook_id, is_reserved, switch_id
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import Artifact, JobSpec
from tests.support.clock import SECOND
from tests.support.histories import COMMANDS, START_US, job_id, play

#: One more event beside those of jobs: its stream, and the event; from the log and a small number.
Next = Callable[[list[Recorded], int], tuple[str, e.Event] | None]


def busy_log(seed: int) -> list[Recorded]:
    """About 1000 events: of jobs, hooks, deliveries, webhooks, pauses and keys."""
    random = Random(f"busy {seed}")
    log: list[Recorded] = []
    for each in _jobs(random):
        log.append(replace(each, position=len(log) + 1, transition=None))
        following = random.choice(_OTHERS)(log, random.randrange(4))
        if following is not None and random.random() < 0.5:
            stream, event = following
            version, actor = _count(log, stream) + 1, f"actor {random.randrange(4)}"
            position = len(log) + 1
            log.append(
                Recorded(position, stream, version, each.at_us, actor, event, *encode(event))
            )
    return log


def _jobs(random: Random) -> list[Recorded]:
    """New jobs come while older ones change and end."""
    commands = [*COMMANDS, "start", "breaker", "complete", "import"]
    steps = [
        (number // 20 + random.randrange(6), random.choice(commands), random.randrange(61), 2)
        for number in range(3000)
    ]
    return play([_spec(random, number) for number in range(157)], steps)


def _spec(random: Random, number: int) -> JobSpec:
    earlier = job_id(max(0, number - random.randrange(1, 4)))
    return JobSpec(
        random.choice(["csv", "csv", "render"]),
        {"n": number},
        tags=tuple(random.sample("abc", 2)),
        owner=random.choice([None, "ann", "bob"]),
        priority=random.randrange(-3, 4),
        run_at_us=START_US + random.randrange(3000) * SECOND if number % 5 == 0 else None,
        max_attempts=3,
        artifacts=(Artifact("in", f"{number:064}", 9),) if number % 4 == 0 else (),
        ttl_s=random.choice([None, 60.5]),
        queue=random.choice([None, "q"]),
        concurrency_key=random.choice([None, "k"]),
        after=(earlier,) if number % 3 == 0 else (),
        after_failure=random.choice([None, "run"]),
        parent=earlier if number % 7 == 0 else None,
        hooks=("story", "mail") if number % 2 else (),
    )


# --- what is recorded beside jobs


def _pause(log: list[Recorded], number: int) -> tuple[str, e.Event]:
    kind = ("type", "queue", "schedule")[number % 3]
    stream = switch_id(kind, "csv")
    paused = _count(log, stream) % 2
    return stream, e.Resumed(kind, "csv") if paused else e.Paused(kind, "csv", f"since {len(log)}")


def _webhook(log: list[Recorded], number: int) -> tuple[str, e.Event] | None:
    added = e.WebhookAdded(("JobCompleted",), (), None, "https://example.com")
    return _nth(log, _webhook_id(log, number), added, e.WebhookRemoved())


def _webhook_id(log: list[Recorded], number: int) -> str:
    return job_id(10_000 + 10 * (len(log) // 80) + number)


def _delivery(log: list[Recorded], number: int) -> tuple[str, e.Event] | None:
    """Of a newer event, or again of an older one."""
    webhook = _webhook_id(log, number)
    if _count(log, webhook) == 0:
        return None
    position = len(log) - len(log) * 7 % 11
    spec = JobSpec(e.DELIVERY, {"webhook": webhook, "position": position}, max_attempts=1)
    return delivery_id(webhook, position, len(log)), e.JobSubmitted(spec)


def _key(log: list[Recorded], number: int) -> tuple[str, e.Event] | None:
    created = e.KeyCreated("script", "ann", "ab" * 32, ("jobs:read",))
    return _nth(log, job_id(20_000 + 10 * (len(log) // 80) + number), created, e.KeyRevoked())


def _hook(log: list[Recorded], number: int) -> tuple[str, e.Event] | None:
    """The next event of the job that runs a hook of the newest completed job."""
    completed = [each.job_id for each in log if isinstance(each.event, e.JobCompleted)]
    hooked = [each for each in completed if not is_reserved(each) and int(each[-12:]) % 2]
    if not hooked:
        return None
    name = ("story", "mail")[number % 2]
    spec = JobSpec(hook_type("csv", name), {"job": hooked[-1], "hook": name}, max_attempts=1)
    return _nth(
        log,
        hook_id(hooked[-1], name),
        e.JobSubmitted(spec),
        e.AttemptStarted(1, "worker"),
        e.AttemptFailed(1, "busy", False),
        e.JobRetried(),
        e.AttemptStarted(2, "worker"),
        e.JobCompleted(2),
    )


_OTHERS: tuple[Next, ...] = (_pause, _webhook, _delivery, _key, _hook, _hook)


def _nth(log: list[Recorded], stream: str, *events: e.Event) -> tuple[str, e.Event] | None:
    """The first of *events* that *stream* does not have yet."""
    count = _count(log, stream)
    return (stream, events[count]) if count < len(events) else None


def _count(log: list[Recorded], stream: str) -> int:
    return sum(each.job_id == stream for each in log)
