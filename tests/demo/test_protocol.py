"""analyze-text: suggestions at their places, for any text, in linear time."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventjobs.demo.handlers import analyze_text
from eventjobs.demo.protocol.review import split_sentences, syllables
from eventjobs.errors import JobError
from tests.support.demo_jobs import RecordingContext, run

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


PROTOCOL = """STUDY SYNOPSIS AND OBJECTIVES

The Primary Endpoint (PE) is overall survival. Blood samples will be collected by Dr. Smith \
every 4 weeks, e.g. on Day 1. Patients should be assessed regularly for AEs. The PE was chosen.
Subjects receive approximately 2.5 mg of drug.
"""


def test_a_protocol_gets_suggestions_at_their_places() -> None:
    result = run(analyze_text, RecordingContext(), text=PROTOCOL, ta="oncology")
    for each in result["suggestions"]:
        assert 0 <= each["start"] < each["end"] <= len(PROTOCOL)
    suggestions = {
        (each["kind"], PROTOCOL[each["start"] : each["end"]]) for each in result["suggestions"]
    }
    assert suggestions == {
        ("passive_voice", "be collected"),
        ("passive_voice", "be assessed"),
        ("passive_voice", "was chosen"),
        ("vague_wording", "should"),
        ("vague_wording", "regularly"),
        ("vague_wording", "approximately"),
        ("undefined_abbreviation", "AE"),
    }
    assert result["sentences"] == 6
    assert result["ta"] == "oncology"
    assert len({each["id"] for each in result["suggestions"]}) == len(result["suggestions"])


def test_readability_is_fleschs_formula() -> None:
    text = "The cat sat on the mat. The dog ran to the big red barn."
    ease = run(analyze_text, RecordingContext(), text=text)["readability"]["flesch_reading_ease"]
    assert ease == pytest.approx(206.835 - 1.015 * 14 / 2 - 84.6 * 14 / 14, abs=0.1)
    words = {"table": 2, "protocol": 3, "assessed": 2, "treated": 2, "made": 1, "a": 1}
    assert {word: syllables(word) for word in words} == words


def test_abbreviations_and_decimals_do_not_end_a_sentence() -> None:
    text = (
        "See Fig. 2 for e.g. 2.5 mg vs. 5 mg. Next one, etc. No. 5? Yes!\n- An item\n- Another item"
    )
    spans = [text[start:end] for start, end in split_sentences(text)]
    assert spans == [
        "See Fig. 2 for e.g. 2.5 mg vs. 5 mg.",
        "Next one, etc.",
        "No. 5?",
        "Yes!",
        "- An item",
        "- Another item",
    ]


def test_a_truncated_document_is_looked_at_in_part_and_says_so() -> None:
    text = "This should be done. " * 2_000
    whole = run(analyze_text, RecordingContext(), text=text)
    part = run(analyze_text, RecordingContext(), text=text, mode="document_truncated")
    assert (part["truncated"], whole["truncated"]) == (True, False)
    assert part["characters_analyzed"] == 20_000
    assert part["characters_total"] == len(text)
    assert len(whole["suggestions"]) == 200
    assert whole["suggestions_total"] == 4_000
    assert {each["kind"] for each in whole["suggestions"]} == {"vague_wording", "passive_voice"}


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_text_is_an_error_for_good(text: str) -> None:
    with pytest.raises(JobError) as caught:
        run(analyze_text, RecordingContext(), text=text)
    assert (caught.value.error_code, caught.value.retryable) == ("text_empty", False)


@quick
@given(text=st.text(min_size=1))
def test_any_text_is_reviewed(text: str) -> None:
    if text.strip():
        result = run(analyze_text, RecordingContext(), text=text)
        assert len(result["suggestions"]) <= 200


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        "!",
        ".",
        "a",
        "A",
        "AB ",
        "AB(",
        "is ",
        "is not ",
        "\n",
        "\n ",
        " ",
        '."',
        "etc",
        "x (",
        "Ab-",
    ],
)
def test_a_hostile_text_takes_no_longer_than_others(piece: str) -> None:
    """Many rules on one line: each must stay linear in the length of the text."""
    text = piece * (300_000 // len(piece)) + "x"
    assert run(analyze_text, RecordingContext(), text=text)["characters_total"] == len(text)


@pytest.mark.parametrize(
    ("text", "undefined"),
    [
        ("The serum level (SL) rose. SL fell.", set()),
        ("SL (serum level) rose.", set()),
        ("SL: serum level", set()),
        ("The SL rose (see Section 2).", {"SL"}),
        ("SAEs and QT-2 rose in the US.", {"SAE", "QT-2"}),
    ],
)
def test_an_abbreviation_is_defined_by_brackets_or_a_list(text: str, undefined: set[str]) -> None:
    suggestions = run(analyze_text, RecordingContext(), text=text)["suggestions"]
    flagged = {text[each["start"] : each["end"]] for each in suggestions}
    assert flagged == undefined
