"""Events are read back as they were written, by this eventjobs and by every later one."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.domain import events as e
from eventjobs.domain.codec import UPCASTERS, Upcaster, decode, encode
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import CorruptLog, NotJSON
from eventjobs.storable import DEPTH_MAX
from tests.support.decisions import JOB_ID, as_recorded
from tests.support.histories import BY_CLASS, events, texts

CLASSES: list[type[Any]] = list(e.Stored.__args__)
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.json"))


# --- written and read


@given(events)
def test_every_event_is_read_back_as_it_was_written(event: e.Event) -> None:
    type, facts, body = encode(event)
    again = decode(type, facts, body)
    assert again == event
    assert encode(again) == (type, facts, body)


def test_every_class_of_event_is_drawn() -> None:
    assert set(BY_CLASS) == set(CLASSES), "give the new class a strategy in tests/histories.py"


def test_what_is_not_set_is_not_stored() -> None:
    assert encode(e.ProgressReported(1)) == ("ProgressReported", b'{"attempt":1}', b"{}")
    assert encode(e.JobRetried()) == ("JobRetried", b"{}", b"{}")


def test_keys_are_sorted_and_nothing_is_between_them() -> None:
    _, facts, body = encode(e.LogWritten(3, "info", "Zoë", {"b": 1, "a": 2}))
    assert facts == b'{"attempt":3,"level":"info"}'
    assert body == '{"fields":{"b":1,"a":2},"message":"Zoë"}'.encode()


def test_what_people_put_in_is_in_the_body_alone() -> None:
    spec = JobSpec("csv", {"secret": 1}, tags=("private",), owner="ann")
    _, facts, body = encode(e.JobSubmitted(spec))
    assert b"secret" not in facts
    assert b"private" not in facts
    assert body == b'{"payload":{"secret":1},"tags":["private"]}'


@pytest.mark.parametrize("value", [2**64, {1: 2}, b"bytes", "\ud800", object()])
def test_what_json_cannot_hold_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        encode(e.JobSubmitted(JobSpec("csv", value)))


def test_what_was_stored_is_read_also_where_it_could_no_longer_be_submitted() -> None:
    """An earlier version may have had a higher limit."""
    depth = DEPTH_MAX + 20
    body = b'{"result":' + b"[" * depth + b"]" * depth + b"}"
    event = decode("JobCompleted", b'{"attempt":1}', body)
    assert encode(event) == ("JobCompleted", b'{"attempt":1}', body)


# --- golden files: never edited, also when the classes change


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_file_is_read_and_written_again_to_the_same_bytes(path: Path) -> None:
    stored = json.loads(path.read_text())
    facts, body = stored["facts"].encode(), stored["body"].encode()
    event = decode(stored["type"], facts, body)
    if stored["type"] not in UPCASTERS:  # an older shape is written as the newest
        assert encode(event) == (stored["type"], facts, body)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_golden_files_of_a_class_show_every_field(kind: type[Any]) -> None:
    """A field that is left at its default would not be proven. One that was added since the first
    file, and may be missing, is in a second one of the same shape: JobSubmitted~2.
    """
    names: set[str] = set()
    for path in GOLDEN:
        stored = json.loads(path.read_text())
        event = decode(stored["type"], stored["facts"].encode(), stored["body"].encode())
        if type(event) is kind and stored["type"] not in UPCASTERS:
            names |= {*json.loads(stored["facts"]), *json.loads(stored["body"])}
    holder = JobSpec if kind is e.JobSubmitted else kind
    assert names == set(holder.__dataclass_fields__) - {"BODY"}


def test_every_class_has_a_golden_file_of_its_newest_shape() -> None:
    schemas = [(each.__name__, getattr(each, "SCHEMA", 1)) for each in CLASSES]
    wanted = {name if schema == 1 else f"{name}-{schema}" for name, schema in schemas}
    shapes = {path.stem.partition("~")[0] for path in GOLDEN}
    assert wanted <= shapes, "add the new shape under tests/golden"
    older = shapes - wanted
    assert older <= {type.replace("/", "-") for type in UPCASTERS}, "add an upcaster"


# --- earlier schemas


def rename_node(facts: dict[str, Any], body: dict[str, Any]) -> tuple[str, Any, Any]:
    """An upcaster: in the first schema the field `worker` was `node`."""
    return "AttemptStarted/2", {**facts, "worker": facts["node"]}, body


def without_node(facts: dict[str, Any], body: dict[str, Any]) -> tuple[str, Any, Any]:
    return "AttemptStarted", {k: v for k, v in facts.items() if k != "node"}, body


CHAIN: dict[str, Upcaster] = {"AttemptBegan": rename_node, "AttemptStarted/2": without_node}


def test_an_older_shape_is_brought_up_to_today_step_by_step() -> None:
    began = decode("AttemptBegan", b'{"attempt":1,"node":"a"}', b"{}", CHAIN)
    assert began == e.AttemptStarted(1, "a")


def test_a_shape_is_brought_up_from_its_own_version_on() -> None:
    stored = b'{"attempt":1,"node":"a","worker":"b"}'
    assert decode("AttemptStarted/2", stored, b"{}", CHAIN) == e.AttemptStarted(1, "b")


def test_an_older_shape_whose_body_was_erased_is_brought_up_too() -> None:
    stored = b'{"attempt":1,"node":"a"}'
    assert decode("AttemptBegan", stored, None, CHAIN) == e.AttemptStarted(1, "a")


def test_todays_shape_passes_no_upcaster() -> None:
    assert decode("JobExpired", b'{"reason":"ttl"}', b"{}", CHAIN) == e.JobExpired("ttl")


# --- what cannot be read


def test_an_unknown_type_is_told_by_name() -> None:
    with pytest.raises(CorruptLog, match="'JobTeleported'"):
        decode("JobTeleported", b"{}", b"{}")


@pytest.mark.parametrize(
    ("facts", "body"),
    [
        (b"{", b"{}"),
        (b"{}", b"{}"),
        (b'{"reason":"ttl","reason2":1}', b"{}"),
        (b'{"reason":"ttl"}', b"\xff"),
        (b"[]", b"{}"),
        (b'{"reason":"ttl"}', b'{"reason":"twice"}'),
    ],
    ids=["cut off", "too little", "too much", "not text", "no object", "twice"],
)
def test_a_stored_event_that_makes_no_sense_is_a_corrupt_log(facts: bytes, body: bytes) -> None:
    with pytest.raises(CorruptLog, match="JobExpired"):
        decode("JobExpired", facts, body)


def test_an_upcaster_that_misses_a_field_does_not_blame_the_type() -> None:
    with pytest.raises(CorruptLog, match="cannot be read"):
        decode("AttemptBegan", b'{"attempt":1}', b"{}", CHAIN)


# --- erasure


def test_an_erased_event_keeps_its_facts_and_says_so() -> None:
    spec = JobSpec("csv", {"secret": 1}, tags=("private",), priority=7)
    type, facts, _ = encode(e.JobSubmitted(spec))
    event = decode(type, facts, None)
    assert event == e.JobSubmitted(replace(spec, payload=None, tags=()))
    erased = Recorded(1, JOB_ID, 1, 0, "ann", event, type, facts, None)
    assert json.loads(erased.json())["data"] == {**json.loads(facts), "erased": True}


def test_an_erased_event_without_facts_says_so_too() -> None:
    erased = Recorded(1, JOB_ID, 1, 0, "ann", e.JobRetried(), "JobRetried", b"{}", None)
    assert json.loads(erased.json())["data"] == {"erased": True}


# --- events as JSON


@given(events, texts)
def test_a_recorded_event_in_json_has_every_key(event: e.Event, actor: str) -> None:
    type, facts, body = encode(event)
    recorded = Recorded(7, JOB_ID, 3, 1_735_689_600_000_001, actor, event, type, facts, body)
    assert orjson.loads(recorded.json()) == {
        "position": 7,
        "job_id": JOB_ID,
        "version": 3,
        "type": type,
        "at": "2025-01-01T00:00:00.000001Z",
        "actor": actor,
        "data": orjson.loads(facts) | orjson.loads(body),
    }


def test_a_recorded_event_is_put_into_json_once() -> None:
    [event] = as_recorded(e.JobExpired("ttl"))
    assert event.json() is event.json()


@given(st.integers(-(10**15), 4 * 10**15))
def test_a_time_is_rfc_3339_with_microseconds(at_us: int) -> None:
    text = rfc3339(at_us)
    assert len(text) == len("2025-01-01T00:00:00.000000Z")
    assert text.endswith("Z")
    seconds, micros = divmod(at_us, 1_000_000)
    wanted = datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
    assert datetime.fromisoformat(text) == wanted


def test_a_text_that_is_no_text_is_neither_written_nor_read() -> None:
    with pytest.raises(CorruptLog, match="reason cannot be 1"):
        decode("JobExpired", b'{"reason":1}', b"{}")
    with pytest.raises(NotJSON, match="reason cannot be 1"):
        encode(e.JobExpired(1))  # type: ignore[arg-type]
