"""One key file, and what is derived from it."""

import base64
from pathlib import Path

import pytest

from eventjobs.auth.master_key import KEY_BYTES, MasterKey
from eventjobs.errors import SecretKeyUnusable
from eventjobs.observability.redaction import REDACTED, SECRET_VALUE

JOB = "00000000-0000-4000-8000-000000000001"


def test_a_key_is_made_once_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    token = MasterKey.open(path).callback_token(JOB, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == KEY_BYTES
    assert MasterKey.open(path).callback_token(JOB, 1) == token
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]


def test_two_services_have_different_keys(tmp_path: Path) -> None:
    one, other = MasterKey.open(tmp_path / "one"), MasterKey.open(tmp_path / "other")
    assert one.derive("callback") != other.derive("callback")


def test_what_a_start_that_was_cut_off_has_left_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "secret.key.new").write_bytes(b"half")
    MasterKey.open(tmp_path / "secret.key")
    assert not (tmp_path / "secret.key.new").exists()


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_file_that_holds_no_key_is_left_alone_and_told_of(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(SecretKeyUnusable, match=r"secret\.key"):
        MasterKey.open(path)
    assert path.read_bytes() == content


def test_every_purpose_and_every_part_has_its_own_secret() -> None:
    keys = MasterKey(bytes(KEY_BYTES))
    secrets = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", ""), ("ab", 1), ("ab", 11)]
    assert len({keys.derive(*each) for each in secrets}) == len(secrets)  # type: ignore[arg-type]
    assert all(len(keys.derive(*each)) == 32 for each in secrets)  # type: ignore[arg-type]


def test_a_token_is_good_for_its_attempt_alone() -> None:
    keys = MasterKey(bytes(KEY_BYTES))
    token = keys.callback_token(JOB, 1)
    assert keys.attempt_of(token, JOB) == 1
    assert keys.attempt_of(keys.callback_token(JOB, 12), JOB) == 12
    assert keys.attempt_of(token.replace("cb_1", "cb_2"), JOB) is None
    assert keys.attempt_of(token, JOB.replace("1", "2")) is None


@pytest.mark.parametrize("attempt", [0, -1, 10**9])
def test_there_is_no_token_for_an_attempt_that_cannot_be(attempt: int) -> None:
    keys = MasterKey(bytes(KEY_BYTES))
    assert keys.attempt_of(keys.callback_token(JOB, attempt), JOB) is None


@pytest.mark.parametrize(
    "token", ["", "€", "\udcff", "ej_cb_1_", "ej_cb_1_" + "0" * 64, "Ej_cb_1_", "\n"]
)
def test_what_is_no_token_is_good_for_nothing(token: str) -> None:
    assert MasterKey(bytes(KEY_BYTES)).attempt_of(token, JOB) is None


def test_a_token_with_something_around_it_is_none() -> None:
    keys = MasterKey(bytes(KEY_BYTES))
    token = keys.callback_token(JOB, 1)
    for wrong in (token[:-1], token + "0", token + "\n", " " + token, token.upper()):
        assert keys.attempt_of(wrong, JOB) is None


def test_what_is_made_is_hidden_wherever_it_is_logged() -> None:
    keys = MasterKey(bytes(KEY_BYTES))
    secrets = [keys.callback_token(JOB, number) for number in range(1, 200)]
    secrets += [keys.signing_secret("dispatch", number) for number in range(200)]
    for secret in secrets:
        # What cannot be a part of a word of it, a dash say, must not end the hiding.
        assert SECRET_VALUE.sub(REDACTED, f"was {secret}, sent") == f"was {REDACTED}, sent"


def test_a_signing_secret_is_written_as_standard_webhooks_wants_it() -> None:
    """`whsec_` and base64 of 24 to 64 bytes."""
    prefix, _, secret = MasterKey(bytes(KEY_BYTES)).signing_secret("webhook", 7).partition("_")
    assert prefix == "whsec"
    assert len(base64.b64decode(secret, validate=True)) == 32
