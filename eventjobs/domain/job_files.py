"""The files of a job in a store of JSON files: one object, or a history of one object on a line.

The history is read tolerantly, for no two programs write the same: docs/job-files.md says how.
"""

import math
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from eventjobs.domain.events import IMPORTED_STATUSES, JobImported, is_own
from eventjobs.domain.timestamps import MAX_US, microseconds
from eventjobs.domain.validation import NAME_CHARS_MAX, uuid_text
from eventjobs.errors import NotJSON
from eventjobs.storable import encode_json

JSON = dict[str, Any]

#: The type of a job whose file names none.
TYPE = "imported"
#: States of an old history that become events: the first, and the newest ones.
STATES_MAX = 200
#: Bytes of these states. Of a longer history only the newest state is kept.
STATES_BYTES_MAX = 8 * 2**20
_ENDED = frozenset({"completed", "failed", "cancelled"})


class MalformedJobFile(ValueError):
    """The file does not say what the state of its job is. The message says why."""


class Source(NamedTuple):
    """Where a file was read, and what counts for a job that does not say it."""

    job_id: str
    #: Its path, for people.
    path: str
    #: When it was written: the time of a job without times.
    modified_us: int
    owner: str | None = None


class History(NamedTuple):
    """The states that a job had, oldest first; at least one. *skipped* lines could not be read."""

    states: list[JobImported]
    skipped: list[str]


def parse_job_file(text: bytes, source: Source) -> JobImported:
    """The state of the job in *text*. Raises MalformedJobFile."""
    return _state(_parse_object(text), source, None)


def parse_history(text: bytes, source: Source) -> History:
    """The states of the job after each line of *text*. Raises MalformedJobFile without any."""
    job: JSON = {}
    states: list[JobImported] = []
    skipped = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            changed = job | _changes(job, _parse_object(line), source)
            if "status" in changed:
                states.append(_state(changed, source, number))
            job = changed
        except MalformedJobFile as error:
            skipped.append(f"line {number}: {error}")
    if not states:
        raise MalformedJobFile(skipped[0] if skipped else "no line of it has a status")
    return History(_limit(states), skipped)


def _limit(states: list[JobImported]) -> list[JobImported]:
    if len(states) > STATES_MAX:
        states = [states[0], *states[1 - STATES_MAX :]]
    size = sum(len(encode_json(each.record)) for each in states)
    return states if size <= STATES_BYTES_MAX else states[-1:]


def _parse_object(text: bytes) -> JSON:
    text = text.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise MalformedJobFile("it is empty")
    try:
        value = orjson.loads(text)
        encode_json(value)  # refuses what is nested too deeply
    except orjson.JSONDecodeError as error:
        raise MalformedJobFile(f"it is not JSON: {error}") from error
    except NotJSON as error:
        raise MalformedJobFile(f"it cannot be stored: {error}") from error
    if not isinstance(value, dict):
        raise MalformedJobFile("it is not a JSON object")
    return value


def _state(record: JSON, source: Source, line: int | None) -> JobImported:
    _check_id(record, source)
    status = record.get("status")
    if not isinstance(status, str) or status not in IMPORTED_STATUSES:
        raise MalformedJobFile(f"its status is {_text_of(status)}, not one of the known ones")
    created_us = _first_time(record, "created_at")
    updated_us = _first_time(record, "updated_at")
    if created_us is None:
        created_us = source.modified_us if updated_us is None else updated_us
    if updated_us is None:
        updated_us = created_us
    finished_us = _first_time(record, "finished_at", "completed_at")
    return JobImported(
        _type(record),
        status,
        source.path,
        created_us,
        updated_us,
        _first_time(record, "started_at"),
        (updated_us if finished_us is None else finished_us) if status in _ENDED else None,
        source.owner,
        line,
        record,
    )


def _check_id(record: JSON, source: Source) -> None:
    if (named := record.get("job_id")) is None:
        return
    try:
        same = uuid_text(named) == source.job_id
    except ValueError:
        same = False
    if not same:
        raise MalformedJobFile(f"its job_id is {_text_of(named)}, not the one in its name")


def _type(record: JSON) -> str:
    name = record.get("type") or record.get("job_type")
    if not isinstance(name, str) or not name.isprintable() or len(name) > NAME_CHARS_MAX:
        return TYPE
    return TYPE if not name or is_own(name) else name


def _first_time(record: JSON, *names: str) -> int | None:
    """The first of the times *names* in microseconds since 1970; without a zone it is UTC."""
    for name in names:
        if (value := record.get(name)) is not None:
            try:
                at_us = _microseconds(value)
            except (ValueError, OverflowError):
                at_us = -1
            if not 0 <= at_us <= MAX_US:
                raise MalformedJobFile(f"its {name} is {_text_of(value)}, which is no time")
            return at_us
    return None


def _microseconds(value: object) -> int:
    if isinstance(value, str):
        at = datetime.fromisoformat(value)
        return microseconds(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return int(value * 1e6)
    raise ValueError("neither text nor a number of seconds")


def _text_of(value: object) -> str:
    return f"{value!r:.60}"


# --- the old history

#: The names of a line's event. It may also be under "type", if nothing else is.
_EVENT = ("event", "event_type", "type")
#: The names of a line's time.
_TIMES = ("timestamp", "ts", "time", "at", "updated_at", "created_at")
#: Objects in a line that have fields of the job.
_NESTED = ("data", "job", "fields", "updates", "changes")
#: The status after an event, by a part of its name. The first that fits counts.
_STATUS_OF = {
    re.compile("fail|error"): "failed",
    re.compile("cancel"): "cancelled",
    re.compile("complet|finish|succe"): "completed",
    re.compile("start|running|progress"): "running",
    re.compile("creat|queue|submit"): "queued",
}


def _changes(job: JSON, line: JSON, source: Source) -> JSON:
    """The fields of *job* that the event in *line* changes."""
    _check_id(line, source)
    event = next((line[name] for name in _EVENT if isinstance(line.get(name), str)), "")
    nested = [line[name] for name in _NESTED if isinstance(line.get(name), dict)]
    envelope = {*_EVENT, *_NESTED, *_TIMES[:4]}
    changes = {name: value for name, value in line.items() if name not in envelope}
    for each in nested:
        changes |= each
    if "error_message" not in changes and isinstance(changes.get("error"), str):
        changes["error_message"] = changes["error"]
    if "status" not in changes:
        changes |= _status_after(event)
    if (at := next((line[name] for name in _TIMES if name in line), None)) is not None:
        changes |= {"updated_at": at, "created_at": job.get("created_at", at)}
        if changes.get("status") == "running":
            changes |= {"started_at": job.get("started_at", at)}
    return changes


def _status_after(event: str) -> JSON:
    """The status after *event*, as a field, if the name of the event says one."""
    names = (status for part, status in _STATUS_OF.items() if part.search(event.lower()))
    return {} if (status := next(names, None)) is None else {"status": status}
