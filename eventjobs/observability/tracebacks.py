"""Exceptions as text. No function here raises, even if the class of an exception misbehaves."""

import traceback
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from eventjobs.errors import JobError
from eventjobs.storable import TEXT_CHARS_MAX, class_name, storable_text

#: Bounds of one traceback: innermost frames, chained exceptions, members of a group.
FRAMES_MAX = 20
CHAIN_MAX = 5
GROUP_MAX = 3
GROUP_DEPTH_MAX = 3
NOTES_MAX = 5

_EVENTJOBS = Path(__file__).parents[1]
_DEMO = _EVENTJOBS / "demo"
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def summary(error: BaseException) -> str:
    """The class and the message of *error*; of a group also those of its first member."""
    line = _line(error)
    for _ in range(GROUP_DEPTH_MAX):
        if not (members := _members(error)):
            break
        error = members[0]
        line += f": {_line(error)}"
    return storable_text(line.strip())


def describe(error: BaseException) -> str:
    """The summary in one line; of a JobError its code and message."""
    if issubclass(type(error), JobError):
        return f"{storable_text(attribute(error, 'error_code', None))}: {storable_text(error)}"
    return " ".join(summary(error).split())


def trace(error: BaseException) -> str:
    """The traceback without the frames of eventjobs itself; the end of a long one."""
    try:
        text = _trace(error, 0)
    except BaseException:  # noqa: BLE001 -- the loader of a module may do anything
        text = summary(error)
    return text[-TEXT_CHARS_MAX:].encode("utf-8", "replace").decode()


def attribute(error: BaseException, name: str, default: Any) -> Any:
    """An attribute of *error*; *default* when reading it raises anything."""
    try:
        return getattr(error, name, default)
    except BaseException:  # noqa: BLE001 -- it may be a property
        return default


def _line(error: BaseException) -> str:
    name, text = class_name(type(error)), storable_text(error)
    return f"{name}: {text}" if text else name


def _trace(error: BaseException, depth: int) -> str:
    """From the oldest cause to *error* itself, as Python prints it."""
    sections: list[str] = []
    for chained, link in _chain(error):
        lines = [*_frames(chained), f"{_line(chained)}\n"]
        notes = attribute(chained, "__notes__", None)
        if type(notes) is list:
            lines += [f"{storable_text(note)}\n" for note in notes[:NOTES_MAX]]
        if depth < GROUP_DEPTH_MAX:
            for member in _members(chained)[:GROUP_MAX]:
                text = _trace(member, depth + 1)
                lines += ["  +---\n", *(f"  | {line}\n" for line in text.splitlines())]
        sections.append("".join(lines) + link)
    return "".join(reversed(sections))


def _chain(error: BaseException | None) -> Iterator[tuple[BaseException, str]]:
    """*error* and its causes, each with the text that links it to the one before."""
    link = ""
    seen = set[int]()
    while error is not None and id(error) not in seen and len(seen) < CHAIN_MAX:
        seen.add(id(error))
        yield error, link
        cause, context = _slot(error, "__cause__"), _slot(error, "__context__")
        link = _CONTEXT if cause is None else _CAUSE
        error = context if cause is None and not _slot(error, "__suppress_context__") else cause


def _frames(error: BaseException) -> list[str]:
    frames = list(_frames_of_user(error)) or list(_all_frames(error))
    if not frames:
        return []
    innermost = deque(frames, maxlen=FRAMES_MAX)
    return [
        "Traceback (most recent call last):\n",
        *traceback.StackSummary.extract(iter(innermost)).format(),
    ]


def _frames_of_user(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """The frames of the handler and of the functions it called."""
    for frame, line in _all_frames(error):
        file = Path(frame.f_code.co_filename)
        internal = file.is_relative_to(_EVENTJOBS) and not file.is_relative_to(_DEMO)
        if not internal and "tenacity" not in file.parts:
            yield frame, line


def _all_frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    return islice(traceback.walk_tb(_slot(error, "__traceback__")), 10_000)


def _members(error: BaseException) -> tuple[BaseException, ...]:
    if not issubclass(type(error), BaseExceptionGroup):
        return ()
    members: tuple[BaseException, ...] = vars(BaseExceptionGroup)["exceptions"].__get__(error)
    return members


def _slot(error: BaseException, name: str) -> Any:
    """An attribute of BaseException, even if the class of *error* has a property of its name."""
    return vars(BaseException)[name].__get__(error)
