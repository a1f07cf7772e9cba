"""What the service logs at debug has no payloads, results, tags or secrets."""

import io
import logging
from typing import Any

import orjson
import pytest
import structlog
from pydantic import BaseModel

from eventjobs import Context, handler
from eventjobs.observability.redaction import REDACTED
from tests.conftest import Connect
from tests.observability.test_logging import configuration, parse_lines
from tests.support.http_client import Client

MARK = "s3nsitive"
SECRETS = {
    "key": "ej_key_s3nsitive0s3nsitive_s3nsitive",
    "session": "ej_ses_s3nsitive-x.s3nsitive_y",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM25zaXRpdmUifQ.s3nsitive",
    "webhook": "whsec_s3nsitive",
}


class Order(BaseModel):
    amount: int


@handler("echo")
async def echo(ctx: Context, payload: Any) -> Any:
    ctx.progress(1, 2, message=MARK, data={"seen": MARK})
    await ctx.artifact(f"{MARK}.txt", MARK.encode())
    return payload


@handler("order")
async def order(ctx: Context, payload: Order) -> int:
    return payload.amount


@handler("leak", max_attempts=1)
async def leak(ctx: Context, payload: Any) -> None:
    """Puts secrets wherever a handler can."""
    headers = {"Authorization": f"Token {MARK}", "Cookie": f"eventjobs={SECRETS['session']}"}
    logging.getLogger("leak").warning("got %s with %r", SECRETS["key"], headers)
    logging.getLogger("leak").warning("got", extra={"password": MARK, "headers": headers})
    structlog.get_logger("leak").info(f"call(token='{MARK}')", args=[SECRETS["webhook"]])
    logging.getLogger("leak").warning("postgres://me:%s@db", MARK, extra={"api_key": MARK})
    raise ValueError(f"refused {SECRETS['jwt']} of log_in(password='{MARK}')")


async def use_with_marks(api: Client) -> None:
    """Use the API with MARK wherever a client has data of its own."""
    spec = {"payload": {MARK: MARK}, "tags": [MARK]}
    job = (await api("POST", "/v1/jobs", {"type": "echo", **spec})).json
    headers = {"Idempotency-Key": MARK, "Content-Type": "application/json"}
    await api("POST", "/v1/jobs", {"type": "echo", "payload": MARK}, headers=headers)
    await api("POST", "/v1/jobs", {"type": "order", "payload": {"amount": MARK}})
    await api("POST", "/v1/jobs", {"type": "echo", MARK: 1})
    await api("POST", "/v1/jobs", b'{"type": "echo", "payload": "s3nsitive')
    lines = orjson.dumps({"type": "echo", "payload": MARK}) + b'\n{"s3nsitive"\n'
    ndjson = {"Content-Type": "application/x-ndjson"}
    await api("POST", "/v1/jobs/batch", data=lines, headers=ndjson)
    await api("POST", "/v1/artifacts", data=io.BytesIO(MARK.encode()))
    await api.service.wait(job["job_id"])
    assert (await api.get(f"/v1/jobs/{job['job_id']}")).json["result"] == {MARK: MARK}
    address = f"/v1/jobs/{job['job_id']}"
    for path in ("", "/events", "/history", "/receipt", f"?after={MARK}"):
        await api.get(address + path)
    await api.get(f"/v1/jobs?tag={MARK}")
    await api.get(f"{address}/events", Accept="text/event-stream")
    await api("POST", f"{address}/retry", {"reason": MARK})
    await api("POST", f"{address}/cancel", {"reason": MARK})
    subscription = {"url": "http://127.0.0.1:9/", "tag": MARK, "secret": f"whsec_{MARK}"}
    await api("POST", "/v1/webhooks", subscription)


async def test_payloads_results_and_tags_are_never_logged(client: Connect) -> None:
    stream = io.StringIO()
    with configuration(stream, "debug"):
        api = await client(echo, order, log_requests="all")
        await use_with_marks(api)
        await api.service.close()
    assert len(parse_lines(stream)) > 15
    assert MARK not in stream.getvalue()


async def test_a_secret_is_hidden_wherever_it_enters(client: Connect) -> None:
    stream = io.StringIO()
    with configuration(stream, "debug", "console"):
        api = await client(leak, capture_logs="debug")
        for secret in SECRETS.values():
            await api.get(f"/v1/jobs/{secret}", X_Request_ID=secret[:64])
            await api.get(f"/v1/{secret}?token={secret}")
            await api.raw(b"GET /%b HTTP/9.9\r\n%b: x\r\n\r\n" % ((secret.encode(),) * 2))
        await api.get(f"/a:{MARK}@b")  # no secret: shows that paths are in the log
        job = await api.submit("leak")
        await api.service.wait(job["job_id"])
        logs = await api.get(f"/v1/jobs/{job['job_id']}/logs")
        logging.getLogger("other").error("failed: %s", SECRETS["key"])
        logging.getLogger("eventjobs.x").error("no fields: %s", SECRETS["key"])
        await api.service.close()
    text = stream.getvalue()
    assert f"/a:{MARK}@b" in text
    assert MARK not in text.replace(f"/a:{MARK}@b", "")
    assert text.count(REDACTED) > 10
    assert MARK not in logs.body.decode()
    assert logs.body.count(REDACTED.encode()) >= 6


@pytest.mark.parametrize("format", ["json", "console"])
async def test_an_unexpected_error_is_logged_without_its_secrets(
    client: Connect, monkeypatch: pytest.MonkeyPatch, format: Any
) -> None:
    stream = io.StringIO()
    with configuration(stream, "info", format):
        api = await client(echo)

        async def fail(*_: Any) -> None:
            headers = {"Authorization": f"Bearer {SECRETS['jwt']}"}
            raise RuntimeError(f"{headers} at postgres://me:{MARK}@db, {SECRETS['key']}")

        monkeypatch.setattr(api.service.views, "counts", fail)
        assert (await api.get("/v1/counts")).code == "internal"
    text = stream.getvalue()
    assert "Traceback" in text
    assert "RuntimeError" in text
    assert MARK not in text
