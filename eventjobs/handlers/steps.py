"""Durable steps: a step's result is stored, and a later attempt does not repeat the step."""

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
    """One call of `ctx.step`: its unique name, its number in the attempt, its result if done."""

    name: str
    number: int
    done: bool = False
    result: Any = None


class Steps:
    """The steps of one attempt. Names are made unique: the second `fetch` is `fetch#2`."""

    def __init__(self, job: Job, channel: AttemptChannel) -> None:
        self._job = job
        self._channel = channel
        self._use_counts: dict[str, int] = {}
        self._names: set[str] = set()
        self._old_names: set[str] = set()
        self._number = 0
        #: Results of earlier attempts by name, in order of completion; None until read.
        self._stored: dict[str, Any] | None = None
        self._last_index = -1

    async def lookup(self, name: str, was: str | None = None) -> StepCall:
        """The next step call; done, with its result, if an earlier attempt completed the step.

        Names are assigned before anything is awaited: concurrent tasks get theirs in the order in
        which they begin. Raises InvalidInput, LogError.
        """
        call = StepCall(self._unique_name(_check_name(name)), self._number)
        self._number += 1
        if was is not None:
            self._old_names.add(_check_name(was))
        if self._stored is None:
            stored = await self._channel.steps()
            self._stored = stored if self._stored is None else self._stored
        if call.name in self._stored:
            self._warn_if_reordered(call, self._stored)
            return StepCall(call.name, call.number, True, storable_json(self._stored[call.name]))
        if was in self._stored:
            return await self.store(call, storable_json(self._stored[was]), was)
        return call

    async def store(self, call: StepCall, result: Any, was: str | None = None) -> StepCall:
        """Record *result*; the completed call. Raises StepTooLarge, JobError, StaleAttempt."""
        attempt = self._job.attempt
        try:
            await self._channel.record(StepCompleted(attempt, call.name, call.number, result, was))
        except StepTooLarge:
            raise
        except TooLarge as error:  # a limit of the process or the worker
            raise StepTooLarge.of(call.name, len(orjson.dumps(result))) from error
        except TooManySteps as error:
            raise JobError(error.code, error.message, retryable=False) from error
        return StepCall(call.name, call.number, True, result)

    def finish(self) -> None:
        """Warn in the job's log of stored steps that the handler did not call. It has returned."""
        stored = self._stored or [each.name for each in self._job.steps]
        unknown = [name for name in stored if name not in self._names | self._old_names]
        if unknown:
            self._warn(
                "steps of an earlier attempt were not called by this one: "
                f"{', '.join(unknown)}. If one was renamed, give its old name: "
                f'ctx.step("new name", function, was="{unknown[0]}") takes over its result.'
            )

    def _unique_name(self, name: str) -> str:
        unique = name
        while unique in self._names:
            self._use_counts[name] = self._use_counts.get(name, 1) + 1
            unique = f"{name}#{self._use_counts[name]}"
        self._names.add(unique)
        return unique

    def _warn_if_reordered(self, call: StepCall, stored: dict[str, Any]) -> None:
        index = list(stored).index(call.name)
        if index < self._last_index:
            self._warn(
                f"step {call.name} was number {index + 1} and is now number "
                f"{call.number + 1}: its stored result is used"
            )
        self._last_index = max(self._last_index, index)

    def _warn(self, text: str) -> None:
        self._channel.add(LogWritten(self._job.attempt, "warning", text[:4_000]))


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        message = f"a step's name is 1 to {NAME_CHARS_MAX} printable characters"
        raise InvalidInput(message, [{"field": "name", "message": message}])
    return str(name)


def step_result(name: str, value: Any) -> Any:
    """*value* as JSON values. Raises JobError `step_not_json`."""
    try:
        return storable_json(value)
    except NotJSON as error:
        raise JobError(
            "step_not_json",
            f"the result of the step {name!r} is not JSON: {error}",
            retryable=False,
        ) from error
