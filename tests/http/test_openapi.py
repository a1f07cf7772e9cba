"""The OpenAPI document describes every route, and every response fits it."""

import re
from typing import Any

import orjson
import pytest
from jsonschema_rs import Draft202012Validator, meta
from pydantic import BaseModel, Field

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.http import create_app
from eventjobs.http.render import render
from eventjobs.http.routes import ROUTES
from eventjobs.http.schemas.jobs import Job
from eventjobs.http.schemas.queries import AllEventsQuery, EventsQuery, JobQuery, JobsQuery
from eventjobs.projections import JobView
from tests.conftest import Connect, Serve
from tests.support.decisions import given
from tests.support.http_client import Client

SCHEMAS = "#/components/schemas/"


class Line(BaseModel):
    """It has the name of a former schema of the document."""

    text: str = Field(min_length=1)


class Letter(BaseModel):
    lines: list[Line]


@handler("letter.write")
async def write(context: Context, payload: Letter) -> int:
    return len(payload.lines)


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("draw")
async def draw(context: Context, payload: Any) -> None:
    context.progress(1, 2, stage="draw", message="a line", data={"x": 1})
    await context.artifact("chart.svg", b"<svg/>", "image/svg+xml")
    raise ValueError("no")


async def document(api: Client) -> Any:
    return (await api.get("/openapi.json")).json


def references(value: Any) -> set[str]:
    return set(re.findall(r'"\$ref":"([^"]+)"', orjson.dumps(value).decode()))


def validator(spec: Any, name: str) -> Draft202012Validator:
    """The validator of one component, with those that it refers to."""
    return Draft202012Validator({"$ref": SCHEMAS + name, "components": spec["components"]})


async def test_every_route_is_in_the_document_and_nothing_else(serve: Serve) -> None:
    app = create_app(await serve(echo))
    routed = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method not in {"HEAD", "*"}
    }
    assert routed == {(each.method, each.path) for each in ROUTES}


async def test_every_operation_is_described_once(client: Connect) -> None:
    spec = await document(await client(echo))
    assert spec["openapi"] == "3.1.0"
    operations = {
        (method.upper(), path): operation
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {(each.method, each.path) for each in ROUTES}
    assert len({each["operationId"] for each in operations.values()}) == len(operations)
    for (method, path), operation in operations.items():
        assert operation["summary"]
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert any(status < "400" for status in operation["responses"]), (method, path)


async def test_every_reference_leads_somewhere_and_every_schema_is_one(client: Connect) -> None:
    spec = await document(await client(write, echo))
    schemas = spec["components"]["schemas"]
    assert references(spec) <= {SCHEMAS + name for name in schemas}
    for name, schema in schemas.items():
        assert meta.is_valid(schema), name
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    for methods in spec["paths"].values():
        for operation in methods.values():
            for each in operation["parameters"]:
                assert meta.is_valid(each["schema"])


async def test_errors_of_dialects_have_a_schema_of_their_own(client: Connect) -> None:
    api = await client(echo, dialects="all")
    spec = await document(api)
    for path, methods in spec["paths"].items():
        if not path.startswith(("/api/", "/jobs/", "/cases/", "/vapi/")):
            continue
        for operation in methods.values():
            errors = {each: it for each, it in operation["responses"].items() if each >= "400"}
            assert "410" not in errors
            if path == "/api/cancel":  # the front end has a body of its own for it
                del errors["409"]
            for response in errors.values():
                reference = {"$ref": f"{SCHEMAS}DialectError"}
                assert response["content"] == {"application/json": {"schema": reference}}
    schema = validator(spec, "DialectError")
    for method, path in (("GET", "/api/jobs/1"), ("POST", "/api/upload"), ("GET", "/jobs/1")):
        schema.validate((await api(method, path)).json)


async def test_payloads_are_described_by_type(client: Connect) -> None:
    spec = await document(await client(write, echo))
    fits = validator(spec, "Submission").is_valid
    assert fits({"type": "echo", "payload": 5})
    assert fits({"type": "letter.write", "payload": {"lines": [{"text": "x"}]}})
    assert not fits({"type": "letter.write", "payload": {"lines": [{"text": ""}]}})
    assert not fits({"type": "unheard"})
    assert not fits({"type": "echo", "colour": "red"})
    assert set(spec["components"]["schemas"]) >= {
        "payload.letter.write",
        "payload.letter.write.Line",
        "BatchLine",
    }


async def test_every_report_names_its_worker(client: Connect) -> None:
    spec = await document(await client(echo))
    for path, methods in spec["paths"].items():
        if path.startswith("/v1/work/"):
            schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
            name = schema["$ref"].removeprefix(SCHEMAS)
            assert "worker" in spec["components"]["schemas"][name]["required"], path


@pytest.mark.parametrize("model", [JobsQuery, JobQuery, EventsQuery, AllEventsQuery])
async def test_a_query_has_the_parameters_of_its_model(
    client: Connect, model: type[BaseModel]
) -> None:
    spec = await document(await client(echo))
    for path in [each.path for each in ROUTES if each.request.query is model]:
        listed = spec["paths"][path]["get"]["parameters"]
        query = {each["name"]: each["schema"] for each in listed if each["in"] == "query"}
        assert set(query) == set(model.model_fields)
    if model is JobsQuery:
        assert query["limit"]["minimum"] == 1
        assert query["since"]["format"] == "date-time"
        assert query["type"]["type"] == "array"
        assert query["status"]["items"] == {"$ref": SCHEMAS + "Status"}


async def test_what_is_answered_fits_its_schema(client: Connect) -> None:
    api = await client(echo, draw, remote("far"), max_attempts=1)
    done, failed = await api_jobs(api)
    spec = await document(api)
    for path, name in (
        (f"/v1/jobs/{done}", "Job"),
        (f"/v1/jobs/{failed}", "Job"),
        ("/v1/jobs", "JobPage"),
        ("/v1/events", "EventPage"),
        (f"/v1/jobs/{failed}/events", "EventPage"),
        (f"/v1/jobs/{failed}/history", "History"),
        ("/v1/counts", "Counts"),
        ("/healthz", "Health"),
        ("/readyz", "Readiness"),
        ("/nothing", "Problem"),
        ("/v1/jobs?limit=0", "Problem"),
    ):
        validator(spec, name).validate((await api.get(path)).json)
    lines = b'{"type":"echo"}\n{broken'
    headers = {"Content-Type": "application/x-ndjson"}
    reply = await api("POST", "/v1/jobs/batch", data=lines, headers=headers)
    for each in reply.body.splitlines():
        validator(spec, "BatchOutcome").validate(orjson.loads(each))
    reply = await api("POST", "/v1/artifacts", data=b"x")
    validator(spec, "UploadedFile").validate(reply.json)
    job_id = (await api.submit("far"))["job_id"]
    reply = await api("POST", "/v1/work/claim", {"worker": "w", "types": ["far"]})
    validator(spec, "Claimed").validate(reply.json)
    assert reply.json["jobs"]
    for report, name in (
        ("heartbeat", "HeartbeatResponse"),
        ("progress", "HeartbeatResponse"),
        ("complete", "Ended"),
    ):
        reply = await api("POST", f"/v1/work/{job_id}/1/{report}", {"worker": "w"})
        validator(spec, name).validate(reply.json)


async def api_jobs(api: Client) -> list[str]:
    ids = [(await api.submit(each, {"a": 1}, tags=["x"]))["job_id"] for each in ("echo", "draw")]
    for each in ids:
        await api.service.wait(each)
    return ids


def test_a_job_has_every_field_of_its_schema_and_no_other() -> None:
    spec = JobSpec("echo", artifacts=(Artifact("x", "0" * 64, 1),))
    job = given(JobSubmitted(spec)).job
    assert job is not None
    body = render(JobView(job, None, None))
    assert set(body) == set(Job.model_fields)
    Job.model_validate_json(orjson.dumps(body))
