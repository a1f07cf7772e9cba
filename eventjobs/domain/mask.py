"""The mask of a job: hides the values of its sensitive fields from those who may not read them."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any
from urllib.parse import quote

import orjson

from eventjobs.domain.codec import decode_or_unreadable
from eventjobs.domain.events import HOOK_TYPES, Unreadable
from eventjobs.domain.json_fields import fragment_of
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.storable import TEXT_CHARS_MAX

HIDDEN = "[hidden]"
#: Shorter values are not looked for in texts: they would be found in ordinary words.
CHARS_MIN = 6
#: A job with more sensitive values, counted in all their spellings, has all its texts hidden: to
#: look for each takes too long.
VALUES_MAX = 32
#: So has one whose payload in bytes, times the number of values, is more: a read takes up to 0.2 s.
SEARCH_MAX = 4_000_000
#: So has one with more characters in them: a text that was cut may have a part of such a value.
VALUES_CHARS_MAX = TEXT_CHARS_MAX

#: What identifies, counts or orders. It is never hidden: clients decide by it.
_PLAIN = frozenset({"job_id", "jobId", "type", "owner", "queue", "worker", "after", "parent"})
_PLAIN |= {"status", "state", "outcome", "level", "class", "code", "report", "after_failure"}
_PLAIN |= {"media_type", "links", "pace", "by", "at", "since", "until", "timestamp", "next"}
#: JSON of a user. In it, names of fields are the user's.
_JSON = frozenset({"payload", "result", "issues", "data", "fields", "details", "record"})
#: The digest of a file that contains a value would tell whether a guess of the value is right.
_DIGEST = "sha256"


class Mask:
    """Hides every value under the *keys*, and the *values* wherever they occur in other texts.

    Without *values* it is not known what to hide, and everything in JSON and texts is hidden.
    """

    def __init__(
        self, keys: Collection[str], values: Collection[str] | None, payload_bytes: int = 0
    ) -> None:
        self._keys = frozenset(keys)
        self._values: list[str] | None = None
        if values is None or len(values) > VALUES_MAX or sum(map(len, values)) > VALUES_CHARS_MAX:
            return
        forms = {form for value in values for form in _forms(value)}
        if len(forms) <= VALUES_MAX and len(forms) * payload_bytes <= SEARCH_MAX:
            self._values = sorted(forms, key=len, reverse=True)

    @classmethod
    def of(cls, spec: JobSpec) -> "Mask | None":
        """The mask of a job; None for a job without sensitive fields."""
        if not spec.sensitive:
            return None
        # Kept beside the fields of *spec*, which never changes.
        mask: Mask | None = vars(spec).get("_mask")
        if mask is None:
            keys = frozenset(spec.sensitive)
            size = len(orjson.dumps(fragment_of(spec, "payload")))
            # The values in the texts of a hook's job are those of another job's payload.
            is_hook = spec.type.startswith(HOOK_TYPES)
            values = None if is_hook else set(_values(spec.payload, keys))
            mask = vars(spec)["_mask"] = cls(keys, values, size)
        return mask

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of an event, or of a response about the job."""
        return {name: self._field(name, value) for name, value in fields.items()}

    def _field(self, name: str, value: Any) -> Any:
        if name in _PLAIN or name.endswith("_at") or value is None:
            return value
        if name in _JSON:
            return self.json(value)
        if name == _DIGEST:
            return HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self.fields(value)
        if isinstance(value, list):
            return [self._field(name, each) for each in value]
        if type(value) is tuple:
            return tuple(self._field(name, each) for each in value)
        return self.record(value)

    def record(self, record: Any) -> Any:
        """A copy of a dataclass or a named tuple about the job, such as Job itself."""
        if is_dataclass(record) and not isinstance(record, type):
            names = [each.name for each in dataclass_fields(record)]
            return replace(record, **self.fields({name: getattr(record, name) for name in names}))
        if hasattr(record, "_asdict"):
            return record._replace(**self.fields(record._asdict()))
        return record

    def json(self, value: Any) -> Any:
        """JSON of a user, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(each) for each in value]
        if isinstance(value, dict):
            if value.keys() == {"cut"}:  # the beginning of JSON that was too large, as text
                return {"cut": HIDDEN}
            return {
                self.text(key): HIDDEN if key in self._keys else self.json(each)
                for key, each in value.items()
            }
        if isinstance(value, bool) or value is None:
            return value
        return value if self.text(text := str(value)) == text else HIDDEN

    def text(self, text: str) -> str:
        if self._values is None:
            return HIDDEN
        if len(text) < CHARS_MIN:
            return text
        for value in self._values:
            if value in text:
                text = text.replace(value, HIDDEN)
            # A text that was cut may end in the beginning of a value.
            begin = text.rfind(value[:CHARS_MIN])
            if begin >= 0 and value.startswith(text[begin:]):
                text = text[:begin] + HIDDEN
        return text

    def event(self, recorded: Recorded) -> Recorded:
        """*recorded*, or a masked copy of it where something is hidden."""
        if isinstance(recorded.event, Unreadable):  # its fields are not known
            # The facts of a first event are no texts of a handler.
            facts = recorded.facts if recorded.version == 1 else b"{}"
            return self._copy(recorded, Unreadable(HIDDEN), facts, None)
        facts = self._hide(recorded.facts)
        body = None if recorded.body is None else self._hide(recorded.body)
        if facts is recorded.facts and body is recorded.body:
            return recorded
        return self._copy(recorded, decode_or_unreadable(recorded.type, facts, body), facts, body)

    def _hide(self, stored: bytes) -> bytes:
        fields = orjson.loads(stored)
        masked = self.fields(fields)
        return stored if masked == fields else orjson.dumps(masked)

    @staticmethod
    def _copy(recorded: Recorded, event: Any, facts: bytes, body: bytes | None) -> "MaskedEvent":
        place = recorded.position, recorded.job_id, recorded.version, recorded.at_us
        return MaskedEvent(*place, recorded.actor, event, recorded.type, facts, body)


#: Of a job whose first event cannot be read.
UNKNOWN = Mask((), None)


def drop_payload(spec: JobSpec) -> JobSpec:
    """*spec* without its payload. It has the mask of *spec*."""
    slim = replace(spec, payload=None)
    if (mask := Mask.of(spec)) is not None:
        vars(slim)["_mask"] = mask
    return slim


@dataclass(slots=True)
class MaskedEvent(Recorded):
    """An event in which values are hidden. It differs from the stored one, and proves nothing."""

    def json(self) -> bytes:
        return Recorded.json(self)[:-1] + b',"masked":true}'


def _values(value: Any, keys: Collection[str], *, sensitive: bool = False) -> Iterator[str]:
    """The texts of the values under *keys*, at any depth, that can be looked for."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _values(each, keys, sensitive=sensitive or key in keys)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, keys, sensitive=sensitive)
    elif sensitive and not isinstance(value, bool) and len(text := str(value)) >= CHARS_MIN:
        yield text


def _forms(value: str) -> set[str]:
    """*value* as texts contain it: itself, in JSON, in a repr, and in a URL."""
    return {
        value,
        orjson.dumps(value).decode()[1:-1],
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        quote(value),
        quote(value, safe=""),
    }
