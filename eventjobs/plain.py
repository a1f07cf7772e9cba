"""Values as they can be stored: plain text, and what JSON holds."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import orjson
from pydantic import BaseModel

TEXT_CHARS_MAX = 4_000
#: Of what is told with a line of a job's log, as JSON; more than that is cut.
FIELDS_BYTES_MAX = 8_192
#: Nesting of what is stored; the engines and what wraps it in an answer need some room above.
DEPTH_MAX = 200


def plain_text(value: object) -> str:
    """*value* as text that can be stored: no lone surrogates, not too long."""
    text = str(value)[:TEXT_CHARS_MAX]
    return text.encode("utf-8", "replace").decode()


def plain_json(value: Any) -> Any:
    """*value* as it will be read back. Raises TypeError for what JSON cannot hold."""
    if value is None:
        return None
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    _refuse_unreal(value)
    return orjson.loads(orjson.dumps(value))


def cut(fields: Any) -> Any:
    """What is told with a line of a log, if it is not too much; else the beginning of it."""
    if fields is None or len(encoded := orjson.dumps(fields)) <= FIELDS_BYTES_MAX:
        return fields
    return {"cut": plain_text(encoded.decode())}


#: Most of what there is, and nothing that has to be looked into.
_SCALARS = frozenset({str, int, bool, type(None)})


def _refuse_unreal(value: Any, depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise TypeError(f"it is nested deeper than {DEPTH_MAX}")
    if value.__class__ in _SCALARS:
        return
    # orjson writes NaN and infinity as null: a result would silently lose a number.
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is not a JSON number")
    if isinstance(value, dict):
        for each in value.values():
            _refuse_unreal(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            _refuse_unreal(each, depth + 1)
    elif is_dataclass(value):
        for field in fields(value):
            _refuse_unreal(getattr(value, field.name), depth + 1)
