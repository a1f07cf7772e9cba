"""Secrets are recognized by their key and by their form, wherever they are in a line."""

import logging
import time
from typing import Any

import pytest

from eventjobs.observability.redaction import REDACTED, redact, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJt0pIn0.t0p_t0p-t0p"


@pytest.mark.parametrize(
    "text",
    [
        "ej_key_t0pt0p_t0pt0p",
        "cookie eventjobs=ej_ses_t0p-t0p.t0p_t0p, sent",
        "GET /v1/jobs/ej_cb_1_t0p",
        "path=/%20ej_key_t0p&a%3Dej_ses_t0p.t0p",
        f"refused {JWT}.",
        f"at /?x={JWT}&y",
        JWT[:-20],
        "whsec_t0p+/t0p= and whsk_t0p",
        "key sk-or-v1-t0pt0pt0pt0pt0p",
        "Authorization: Bearer t0p",
        "authorization=bearer%20t0p",
        "Authorization: Basic dDBwOnQwcA==",
        "sent basic dDBwOnQwcA there",
        "Authorization: Digest username=t0p, response=t0p",
        "Cookie: a=t0p; b=t0p\r\nHost: here",
        "X-API-Key: t0p",
        "{'Authorization': 'Token t0p', 'Host': 'here'}",
        "<CIMultiDictProxy('Set-Cookie': 'a=t0p; Path=/', 'Host': 'here')>",
        "((b'Authorization', b'Token t0p'), (b'Host', b'here'))",
        "log_in(user='me', password='t0p', n=3)",
        'log_in(user="me", api_key="t0p, t0p")',
        "Settings(jwt_secret='t0p\\'t0p', port=80)",
        '{"user": "me", "client_secret": "t0p", "n": 1}',
        r'{"text": "{\"password\": \"t0p\"}"}',
        "/login?user=me&token=t0p&next=1",
        "form user=me&password=t0p",
        "body token%3Dt0p",
        "pwd=t0p",
        "postgres://me:t0p@db.example/jobs",
        "https://t0pt0p@git.example/repo and amqp://me:p@t0p@mq",
        "-----BEGIN EC PRIVATE KEY-----\nt0p\nt0p\n-----END EC PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nt0p",
    ],
)
def test_a_secret_is_hidden_in_any_text(text: str) -> None:
    hidden = redact_text(text)
    assert "t0p" not in hidden
    assert "dDBw" not in hidden
    assert REDACTED in hidden
    assert redact_text(hidden) == hidden  # the last step finds what an earlier one has left
    assert "t0p" not in str(redact({"args": [ValueError(text), text.encode(), {"a": (text,)}]}))


@pytest.mark.parametrize(
    "text",
    [
        "/v1/jobs/0190a1b2-1234-7000-8000-000000000000/events",
        "basic functions of basic authentication",
        "total_tokens=15, tokens: 15, token=None, password=null",
        "the cookie, which has a token; this secret: unknown",
        "http://127.0.0.1:8080/v1/jobs and urn:a@b",
        "bearer",
        "rej_counts of obj_ej",
        "project_key is public",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_the_rest_of_a_text_stays() -> None:
    assert redact_text("log_in(user='me', password='t0p', n=3)").endswith("n=3)")
    assert redact_text("postgres://me:t0p@db/jobs") == f"postgres://{REDACTED}@db/jobs"
    assert redact_text("/in?token=t0p&next=1") == f"/in?token={REDACTED}&next=1"


def test_a_pair_is_hidden_by_its_first_member() -> None:
    headers = [("Authorization", "Token t0p"), (b"Cookie", b"t0p"), ("Host", "here")]
    hidden = redact({"raw_headers": headers})["raw_headers"]
    assert [value for _, value in hidden] == [REDACTED, REDACTED, "here"]


@pytest.mark.parametrize(
    "text",
    [
        *("a-" * 8000, "token" * 3000, "password=" * 2000, "://" * 5000, "basic " * 3000),
        *(
            "bearer" + " " * 16_000,
            "'token" * 2000 + "\\" * 8000,
            "-----BEGIN PRIVATE KEY-----" * 600,
        ),
        *("cookie:" * 2000, "authorization '" * 1000, "eyJ" * 5000, "://" + "a@" * 8000),
    ],
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    began = time.process_time()
    redact_text(text)
    assert time.process_time() - began < 0.1


def test_a_value_that_misbehaves_is_no_reason_to_leak() -> None:
    class Odd(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError

    assert redact({"odd": Odd(password="t0p")}) == {"odd": {"password": REDACTED}}
    record = logging.makeLogRecord({"msg": "x %s", "args": ("password=t0p",)})
    assert redact_text(record.getMessage()) == f"x password={REDACTED}"
