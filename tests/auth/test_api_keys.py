"""The text of API keys, and the comparison of their secrets."""

import re
import uuid
from hmac import compare_digest

import pytest

from eventjobs.auth.api_keys import APIKey, key_id_of, stream_of
from eventjobs.domain.ids import new_id
from eventjobs.observability.redaction import REDACTED, redact_text

STREAM = "01943e2a-5d2c-7000-8000-0123456789ab"


def test_a_key_is_parsed_from_its_text() -> None:
    key = APIKey.create(STREAM)
    assert re.fullmatch(r"ej_key_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}", key.text)
    assert APIKey.parse(key.text) == key
    assert stream_of(key.key_id) == STREAM
    assert APIKey.create(STREAM).secret != key.secret


def test_the_checksum_is_crc_32_of_what_is_before_it() -> None:
    key = APIKey("0" * 22, "1" * 43)
    assert key.text == f"ej_key_{'0' * 22}_{'1' * 43}1ueAu0"
    assert APIKey.parse(key.text) == key


def test_a_mistyped_key_is_no_key() -> None:
    text = APIKey.create(STREAM).text
    for at in range(len(text)):
        other = "a" if text[at] != "a" else "b"
        assert APIKey.parse(text[:at] + other + text[at + 1 :]) is None
    for bad in ("", "ej_key_", text[:-1], text + "a", f" {text}", f"{text}\n", text.upper()):
        assert APIKey.parse(bad) is None
    assert APIKey.parse(text.replace("_", "\N{ARABIC-INDIC DIGIT ONE}")) is None


@pytest.mark.parametrize("number", [0, 1, 61, 62, 2**64, 2**128 - 1])
def test_every_stream_has_an_id_of_one_length(number: int) -> None:
    stream = str(uuid.UUID(int=number))
    key_id = key_id_of(stream)
    assert len(key_id) == 22
    assert stream_of(key_id) == stream


@pytest.mark.parametrize("key_id", ["", "z" * 22, "0" * 21, "0" * 23, "0" * 21 + "-", STREAM])
def test_what_is_no_id_has_no_stream(key_id: str) -> None:
    assert stream_of(key_id) is None


def test_ids_of_later_keys_are_greater() -> None:
    ids = [key_id_of(new_id(at_us)) for at_us in range(10**15, 10**15 + 10**7, 10**6)]
    assert ids == sorted(ids)


def test_secrets_are_compared_in_a_time_that_does_not_depend_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr("eventjobs.auth.api_keys.hmac.compare_digest", compare)
    key, other = APIKey.create(STREAM), APIKey.create(STREAM)
    assert key.matches(key.digest)
    assert not key.matches(other.digest)
    assert not key.matches(None), "there is no such key"
    assert len(compared) == 3
    assert {len(each) for pair in compared for each in pair} == {64}


def test_a_key_in_a_log_line_is_hidden() -> None:
    text = APIKey.create(STREAM).text
    assert redact_text(f"refused {text}.") == f"refused {REDACTED}."
