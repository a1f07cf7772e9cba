"""What a mask hides, and what it leaves as it is."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.domain import events as e
from eventjobs.domain.codec import encode
from eventjobs.domain.mask import HIDDEN, UNKNOWN, VALUES_CHARS_MAX, VALUES_MAX, Mask, drop_payload
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.projections import JobView
from eventjobs.projections.attempt_progress import Progress, Stage
from tests.support.decisions import JOB_ID
from tests.support.decisions import given as given_events
from tests.support.histories import events, json_values, texts

SECRET = "hunter2-Zoë"


def mask_of(payload: Any, *keys: str) -> Mask:
    mask = Mask.of(JobSpec("charge", payload, sensitive=keys or ("password",)))
    assert mask is not None
    return mask


def record(event: e.Event) -> Recorded:
    return Recorded(7, JOB_ID, 2, 1_000_000, "http", event, *encode(event))


def test_a_job_without_sensitive_fields_has_no_mask() -> None:
    assert Mask.of(JobSpec("charge", {"password": SECRET})) is None


def test_every_value_under_a_key_is_hidden_at_any_depth() -> None:
    mask = mask_of(None)
    value = {"a": [{"password": 1}, {"b": {"password": {"c": [2]}}}], "password": None}
    assert mask.json(value) == {
        "a": [{"password": HIDDEN}, {"b": {"password": HIDDEN}}],
        "password": HIDDEN,
    }


def test_a_value_is_hidden_wherever_else_it_occurs() -> None:
    mask = mask_of({"password": {"old": SECRET, "pins": ["314159", 271828182]}})
    fields = {
        "message": f"refused: {SECRET}, 271828182",
        "fields": {"url": f"db://u:{SECRET}@h", "314159": 314159, "n": 314158},
        "stages": [{"name": f"try {SECRET}"}],
        "done": 314159,
    }
    assert mask.fields(fields) == {
        "message": f"refused: {HIDDEN}, {HIDDEN}",
        "fields": {"url": f"db://u:{HIDDEN}@h", HIDDEN: HIDDEN, "n": 314158},
        "stages": [{"name": f"try {HIDDEN}"}],
        "done": 314159,
    }


def test_short_values_are_not_looked_for_in_texts() -> None:
    assert mask_of({"password": "in"}).text("in the end") == "in the end"


@pytest.mark.parametrize(
    "secret", ['say "hi"', "back\\slash", "li\nne\ttab", "größe?&x=ü", "a'b\"c'"]
)
def test_a_value_is_found_in_json_in_a_repr_and_in_a_url(secret: str) -> None:
    mask = mask_of({"password": secret})
    quoted = orjson.dumps({"k": secret}).decode()
    assert (
        mask.text(f"got {quoted} and {secret!r}")
        == f'got {{"k":"{HIDDEN}"}} and ' + repr(secret)[0] + HIDDEN + repr(secret)[0]
    )


def test_a_value_that_a_cut_left_in_part_is_hidden() -> None:
    assert mask_of({"password": SECRET}).text(f"refused: {SECRET[:-1]}") == f"refused: {HIDDEN}"
    assert mask_of(None).json({"cut": '{"password":"x'}) == {"cut": HIDDEN}


def test_what_clients_decide_by_is_never_hidden() -> None:
    mask = mask_of({"password": "completed"})
    fields = {"status": "completed", "message": "not completed", "error": {"code": "completed"}}
    assert mask.fields(fields) == {**fields, "message": f"not {HIDDEN}"}


def test_the_digest_of_a_file_is_hidden() -> None:
    """It would tell whether a guess of the value is right."""
    stored = mask_of(None).event(record(e.ArtifactStored(1, "error.json", "ab" * 32, 9, "x/y")))
    assert orjson.loads(stored.data)["sha256"] == HIDDEN


@pytest.mark.parametrize(
    "values", [[f"value {n:04}" for n in range(VALUES_MAX + 1)], "x" * (VALUES_CHARS_MAX + 1)]
)
def test_many_or_long_values_hide_all_texts(values: Any) -> None:
    mask = mask_of({"password": values})
    assert mask.text("any text") == HIDDEN
    assert mask.fields({"data": {"n": 5, "password": 6}, "status": "queued"}) == {
        "data": {HIDDEN: HIDDEN},
        "status": "queued",
    }


def test_as_many_values_as_may_be_are_looked_for() -> None:
    mask = mask_of({"password": [f"value{n:04}" for n in range(VALUES_MAX)]})
    assert mask.text("not value0000, nor value0031") == f"not {HIDDEN}, nor {HIDDEN}"


def test_a_large_payload_with_several_values_hides_all_texts() -> None:
    """To look for each value in each text of it would hold up the service."""
    values = [f"value{n:04}" for n in range(20)]
    assert mask_of({"password": values, "more": "x" * 150_000}).text("any text") == "any text"
    assert mask_of({"password": values, "more": "x" * 250_000}).text("any text") == HIDDEN


def test_a_specification_without_its_payload_has_its_mask() -> None:
    spec = drop_payload(JobSpec("charge", {"password": SECRET}, sensitive=("password",)))
    mask = Mask.of(spec)
    assert (spec.payload, mask and mask.text(SECRET)) == (None, HIDDEN)


def test_a_job_is_copied_with_hidden_values() -> None:
    spec = JobSpec("charge", {"password": SECRET}, tags=(SECRET,), sensitive=("password",))
    job = given_events(
        e.JobSubmitted(spec),
        e.AttemptStarted(1, "w"),
        e.StepCompleted(1, f"try {SECRET}", 0, SECRET),
        e.ArtifactStored(1, "a.txt", "ab" * 32, 9, "text/plain"),
        e.AttemptFailed(1, "broken", False, None, f"not {SECRET}"),
    ).job
    assert job is not None
    masked = mask_of(spec.payload).record(
        JobView(job, Progress(0.5, SECRET, stages=(Stage(SECRET, 5),)), None)
    )
    assert masked.job.error["message"] == f"not {HIDDEN}"
    assert masked.job.artifacts == (Artifact("a.txt", HIDDEN, 9, "text/plain"),)
    assert (masked.job.status, masked.job.steps[0].name) == ("failed", f"try {HIDDEN}")
    assert masked.progress == Progress(0.5, HIDDEN, stages=(Stage(HIDDEN, 5),))
    assert SECRET not in repr(masked)
    assert masked.job.spec == JobSpec(
        "charge", {"password": HIDDEN}, tags=(HIDDEN,), sensitive=("password",)
    )


def test_an_event_says_that_something_in_it_is_hidden() -> None:
    mask = mask_of({"password": SECRET})
    masked = mask.event(record(e.LogWritten(1, "info", f"it is {SECRET}", {"password": 1})))
    assert masked.event == e.LogWritten(1, "info", f"it is {HIDDEN}", {"password": HIDDEN})
    assert orjson.loads(masked.json())["masked"] is True
    harmless = record(e.LogWritten(1, "info", "all is well"))
    assert mask.event(harmless) is harmless


def test_an_unreadable_event_of_a_job_with_sensitive_fields_is_hidden_as_a_whole() -> None:
    event = e.Unreadable(f"it cannot be {SECRET}")
    stored = Recorded(7, JOB_ID, 2, 0, "http", event, "Later", b"{}", b'{"x":"hunter2-Zo\\u00eb"}')
    assert orjson.loads(mask_of({"password": SECRET}).event(stored).json())["data"] == {
        "unreadable": HIDDEN,
        "facts": {},
    }


@given(events)
def test_a_masked_event_is_an_event_of_the_same_class(event: e.Event) -> None:
    """So all that reads events, such as the history of a job, reads masked ones."""
    recorded = record(event)
    assert type(UNKNOWN.event(recorded).event) is type(event)


markers = st.sampled_from(['"quoted" one', "päss-wörd", "4111111111111111", "back\\slash\n"])
places = st.recursive(
    st.just("{}") | json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def _fill(place: Any, secret: str) -> Any:
    """*place* with the secret where it has "{}", and under the key `password`."""
    if isinstance(place, dict):
        return {key: _fill(each, secret) for key, each in place.items()} | {"password": [secret]}
    if isinstance(place, list):
        return [_fill(each, secret) for each in place]
    return f"<{secret}>" if place == "{}" else place


@given(markers, places, texts)
def test_no_event_of_a_job_has_the_value_after_masking(secret: str, place: Any, text: str) -> None:
    filled = {"password": secret, "more": _fill(place, secret)}
    mask = mask_of(filled)
    text = f"{text}{secret!r}{secret}{text}"
    for event in (
        e.JobSubmitted(JobSpec("charge", filled, tags=(text,), concurrency_key=text)),
        e.ProgressReported(1, stage=text, message=text, data=filled),
        e.LogWritten(1, "info", text, filled),
        e.StepCompleted(1, text, 0, filled),
        e.AttemptFailed(1, "broken", False, None, text, {"traceback": text, "more": filled}),
        e.JobCompleted(1, filled, [{"code": "c", "message": text}]),
        e.CancelRequested(text),
    ):
        masked = mask.event(record(event)).json()
        shown = repr(orjson.loads(masked)).encode() + masked
        assert secret.encode() not in shown
        assert repr(secret)[1:-1].encode() not in shown
