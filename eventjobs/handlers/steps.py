"""Durable steps: what one attempt's steps come to is kept, and not done again by the next."""

from dataclasses import dataclass
from typing import Any

import orjson

from eventjobs.domain.events import LogWritten, StepCompleted
from eventjobs.domain.job import Job
from eventjobs.errors import InvalidInput, JobError, NotJSON, StepTooLarge, TooLarge, TooManySteps
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.storable import storable_json

NAME_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of `ctx.step`: its name in this attempt, its place, its result if it has one."""

    name: str
    number: int
    done: bool = False
    result: Any = None


class Steps:
    """The steps of one attempt, known by their names; the second `fetch` is `fetch#2`."""

    def __init__(self, job: Job, reports: AttemptChannel) -> None:
        self._job = job
        self._reports = reports
        self._uses: dict[str, int] = {}
        self._asked: set[str] = set()
        self._renamed: set[str] = set()
        self._number = 0
        #: What earlier attempts have kept, in the order in which they came to it.
        self._kept: dict[str, Any] | None = None
        self._furthest = -1

    async def lookup(self, name: str, was: str | None = None) -> StepCall:
        """The next step, done already if an earlier attempt did it. Raises InvalidInput, LogError.

        Names are given before anything is awaited: tasks that run side by side get theirs in the
        order in which they begin.
        """
        called = StepCall(self._named(_checked(name)), self._number)
        self._number += 1
        if was is not None:
            self._renamed.add(_checked(was))
        if self._kept is None:
            kept = await self._reports.steps()
            self._kept = kept if self._kept is None else self._kept
        if called.name in self._kept:
            self._compare(called, self._kept)
            return StepCall(
                called.name, called.number, True, storable_json(self._kept[called.name])
            )
        if was in self._kept:
            return await self.store(called, storable_json(self._kept[was]), was)
        return called

    async def store(self, called: StepCall, result: Any, was: str | None = None) -> StepCall:
        """The step, with its *result* in the log. Raises StepTooLarge, JobError, StaleAttempt."""
        attempt = self._job.attempt
        try:
            await self._reports.record(
                StepCompleted(attempt, called.name, called.number, result, was)
            )
        except StepTooLarge:
            raise
        except TooLarge as error:  # for a message of a process or a worker, too
            raise StepTooLarge.of(called.name, len(orjson.dumps(result))) from error
        except TooManySteps as error:
            raise JobError(error.code, error.message, retryable=False) from error
        return StepCall(called.name, called.number, True, result)

    def finish(self) -> None:
        """The handler has returned: tell of what was kept and nobody asked for."""
        kept = self._kept or [each.name for each in self._job.steps]
        unknown = [name for name in kept if name not in self._asked | self._renamed]
        if unknown:
            self._warn(
                "steps were completed by an earlier attempt, and not asked for by this one: "
                f"{', '.join(unknown)}. If one has another name now, say which: "
                f'ctx.step("new name", function, was="{unknown[0]}") takes over its result.'
            )

    def _named(self, name: str) -> str:
        unique = name
        while unique in self._asked:
            self._uses[name] = self._uses.get(name, 1) + 1
            unique = f"{name}#{self._uses[name]}"
        self._asked.add(unique)
        return unique

    def _compare(self, called: StepCall, kept: dict[str, Any]) -> None:
        before = list(kept).index(called.name)
        if before < self._furthest:
            self._warn(
                f"step {called.name} was number {before + 1} and is now number "
                f"{called.number + 1}: its stored result is used"
            )
        self._furthest = max(self._furthest, before)

    def _warn(self, text: str) -> None:
        self._reports.add(LogWritten(self._job.attempt, "warning", text[:4_000]))


def _checked(name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        message = f"a step's name is 1 to {NAME_CHARS_MAX} printable characters"
        raise InvalidInput(message, [{"field": "name", "message": message}])
    return str(name)


def step_json(name: str, value: Any) -> Any:
    try:
        return storable_json(value)
    except NotJSON as error:
        raise JobError(
            "step_not_json",
            f"the result of the step {name!r} is not JSON: {error}",
            retryable=False,
        ) from error
