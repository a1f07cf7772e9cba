"""Texts that end a line, a string or a header for some reader, in every field of every request."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

#: Ends of lines for SSE, HTTP, terminals and Unicode; text that is no text; other languages.
TEXTS = (
    "\r\nevent: end\r\ndata: {}\r\n\r\n",
    "\n\nid: 1\n\n",
    "\r\rretry: 1\r\r",
    "a\0b",
    "\u2028data: a\u2029data: b",
    "\x85\x0b\x0c\x1c\x1d\x1e",
    "\x1b[2J\x07\x7f",
    "\ud800",
    "\udfff\ud800",
    "\ufeff\ufffe\uffff",
    "\u202egnp.exe",
    "</script><script>alert(1)</script>",
    "%0d%0aSet-Cookie:%20a=b",
    '"; filename="a.html',
    "../../../etc/passwd",
    "a' OR 1=1 --",
    "{{7*7}}${7*7}%(a)s{0}",
    "x" * 5_000,
)

#: Headers whose value reaches a decision, a response, the log or the database.
HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Cookie",
    "Expect",
    "Forwarded",
    "Host",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Origin",
    "Prefer",
    "Range",
    "Referer",
    "Sec-Fetch-Site",
    "traceparent",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Request-ID",
)
PARAMETERS = ("tag", "status", "type", "queue", "owner", "cursor", "after", "since", "limit", "id")
WORKER = "worker"
ZEROS = "0" * 64


def to_bytes(method: str, path: str, fields: bytes = b"", body: bytes = b"") -> bytes:
    """A request on a connection of its own."""
    named = b"" if b"Host: " in fields else b"Host: localhost\r\n"
    head = f"{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + named + fields + b"\r\n" + body


def with_json(method: str, path: str, value: object) -> bytes:
    """A request whose body is *value* with each character above ASCII escaped, also half of one."""
    body = json.dumps(value).encode()
    return to_bytes(method, path, b"Content-Type: application/json\r\n", body)


def submissions(text: str) -> Iterator[bytes]:
    """Submissions with *text* in each field."""
    fields: dict[str, Any] = {
        "type": text,
        "payload": [text, {text: text}],
        "tags": [text],
        "queue": text,
        "concurrency_key": text,
        "after": [text],
        "after_failure": text,
        "parent": text,
        "run_at": text,
        "artifacts": {text: ZEROS},
        "priority": text,
        text: text,
    }
    for name, value in fields.items():
        yield with_json("POST", "/v1/jobs", {"type": "echo", name: value})
    yield with_json("POST", "/v1/jobs", {"type": "speak", "payload": text})
    yield with_json("PUT", f"/v1/jobs/{_quote(text)}", {"type": "echo"})
    lines = [{"type": "echo", "payload": text}, {"type": text}, {"job_id": text, "type": "echo"}]
    body = b"\n".join(json.dumps(each).encode() for each in lines)
    yield to_bytes("POST", "/v1/jobs/batch", b"Content-Type: application/x-ndjson\r\n", body)


def reads(text: str, job: str) -> Iterator[bytes]:
    """Reads with *text* in each header, parameter and part of a path. *job* has ended."""
    value = text.encode("utf-8", "surrogatepass")
    streams = b"Accept: text/event-stream\r\n"
    for name in HEADERS:
        field = b"%b: %b\r\n" % (name.encode(), value)
        yield to_bytes("GET", f"/v1/jobs/{job}", field)
        yield to_bytes("POST", "/v1/jobs", field, b'{"type":"echo"}')
        yield to_bytes("GET", f"/v1/jobs/{job}/events", streams + field)
    for name in PARAMETERS:
        yield to_bytes("GET", f"/v1/jobs?{name}={_quote(text)}")
        yield to_bytes("GET", f"/v1/jobs/{job}/events?{name}={_quote(text)}", streams)
    yield to_bytes("GET", f"/v1/jobs/{job}/events?lastEventId={_quote(text)}", streams)
    yield to_bytes("GET", f"/v1/jobs?{_quote(text)}={_quote(text)}")
    for path in (
        f"/v1/jobs/{_quote(text)}",
        f"/v1/jobs/{_quote(text)}/events",
        f"/v1/jobs/{job}/artifacts/{_quote(text)}",
        f"/v1/webhooks/{_quote(text)}",
        f"/{_quote(text)}",
    ):
        yield to_bytes("GET", path)


def commands(text: str, job: str) -> Iterator[bytes]:
    """Commands with *text* in each field. *job* waits for its time."""
    yield with_json("POST", f"/v1/jobs/{job}/cancel", {"reason": text})
    yield with_json("POST", f"/v1/jobs/{job}/retry", {"reason": text})
    yield with_json("POST", f"/v1/jobs/{job}/retry", {"from_step": text})
    yield with_json("POST", f"/v1/jobs/{job}/callback", {"status": text, "message": text})
    yield with_json("POST", f"/v1/queues/{_quote(text)}/pause", {"reason": text})
    yield with_json("POST", f"/v1/queues/{_quote(text)}/resume", {"reason": text})
    yield with_json("POST", f"/v1/types/{_quote(text)}/pause", {"reason": text})
    yield with_json("POST", f"/v1/schedules/{_quote(text)}/pause", {"reason": text})
    webhook = {"url": "http://127.0.0.1:9/", "events": [], "types": [], "owner": "a"}
    for name, value in {"url": text, "events": [text], "types": [text], "owner": text}.items():
        yield with_json("POST", "/v1/webhooks", webhook | {name: value})
    yield with_json("POST", "/v1/work/claim", {"worker": text, "types": ["other"]})
    yield with_json("POST", "/v1/work/claim", {"worker": WORKER, "types": [text]})


def reports(text: str, job: str, attempt: int) -> Iterator[bytes]:
    """Reports on a claimed *job* with *text* in each field; the last one ends the attempt."""
    fields: list[tuple[str, dict[str, Any]]] = [
        ("heartbeat", {"worker": text}),
        ("progress", {"stage": text, "message": text, "data": {text: text}}),
        ("progress", {"message": text}),
        ("log", {"lines": [{"message": text, "fields": {text: text}}]}),
        ("log", {"lines": [{"message": text, "level": text}]}),
        ("step", {"name": text, "number": 0, "result": text}),
        ("step", {"name": "step", "number": 0, "result": text, "was": text}),
        ("artifact", {"name": text, "sha256": ZEROS}),
        ("artifact", {"name": "a", "sha256": text}),
        ("artifact", {"name": "a", "sha256": ZEROS, "media_type": text}),
        ("breaker", {"name": text, "state": text, "failures": 0}),
        ("release", {"reason": text, "worker": text}),
        ("complete", {"result": text, "issues": [{text: text}], "worker": text}),
        ("fail", {"code": text, "message": text, "details": {text: text}, "retryable": False}),
        ("fail", {"code": "a", "message": "a", "details": text, "retryable": False}),
    ]
    for name, members in fields:
        path = f"/v1/work/{job}/{attempt}/{name}"
        yield with_json("POST", path, {"worker": WORKER} | members)


def _quote(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")
