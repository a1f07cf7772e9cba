"""The OpenAPI 3.1 document, made from the table of routes, their models and the handlers."""

import inspect
import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from eventjobs import __version__
from eventjobs.errors import (
    DiskFull,
    EventjobsError,
    InvalidInput,
    JobGone,
    JobNotFound,
    LogUnavailable,
    OutcomeUnknown,
    Overloaded,
    PreconditionFailed,
    TooLarge,
)
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.http.problem import (
    MEDIA_TYPE,
    BodyTimeout,
    CrossOrigin,
    MalformedJSON,
    Misdirected,
    RequestError,
    UnsupportedMediaType,
    status_of,
)
from eventjobs.http.routing import ResponseSpec, Route
from eventjobs.http.schemas.events import Event
from eventjobs.http.schemas.problem import Problem
from eventjobs.http.schemas.submission import BatchLine, Submission

SCHEMAS = "#/components/schemas/"

#: Every header a request may bring to some effect, or an answer carries.
HEADERS = {
    "Authorization": "`Bearer` and the token that came with the attempt",
    "Idempotency-Key": "1 to 255 characters; one key is one job, however often it is sent",
    "If-Match": "the ETag that a command is for: 412, and nothing done, when it is another now",
    "If-None-Match": "the ETag you have: 304 when nothing changed; `*` with PUT: only a new job",
    "Prefer": "`wait=20`, with If-None-Match: answer when the job changes, or after 20 seconds",
    "Preference-Applied": "the wait that was asked for",
    "Last-Event-ID": "of a stream: where to go on; wins over `after`",
    "Range": "bytes of the file",
    "Content-Range": "which bytes of the file these are",
    "Location": "the job",
    "Retry-After": "seconds after which asking makes sense",
    "ETag": "of this version",
    "Link": 'rel="next": the next page',
}

_IN_PATHS: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "format": "uuid"},
    "attempt": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}

_WRITES = (Overloaded, LogUnavailable, OutcomeUnknown, DiskFull)
_BODIES = (RequestError, BodyTimeout, TooLarge, UnsupportedMediaType)


@lru_cache(maxsize=4)
def document(routes: tuple[Route, ...], handlers: HandlerRegistry) -> bytes:
    schemas = _schemas(routes, handlers)
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "eventjobs",
                "version": __version__,
                "description": "Submit work, run it, watch it live; every change is an event.",
            },
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def _operation(route: Route) -> dict[str, Any]:
    description = inspect.getdoc(route.handler) or ""
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "summary": re.split(r"[.:;](?:\s|$)", description.replace("\n", " "))[0],
        "description": description,
        "parameters": [*_path(route.path), *_query(route.takes.query), *_headers(route)],
        "responses": _responses(route),
    }
    if (content := _content(route.takes.body, route.takes.media_type)) is not None:
        operation["requestBody"] = {"content": content, "required": not route.takes.optional}
    return operation


def _path(path: str) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        schema = _IN_PATHS.get(name, {"type": "string"})
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(model: type[BaseModel] | None) -> Iterable[dict[str, Any]]:
    if model is None:
        return
    schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
    for name, said in schema["properties"].items():
        # Left out or given: no query string says null.
        chosen = [each for each in said.get("anyOf", ()) if each != {"type": "null"}]
        field = {**said, **(chosen[0] if chosen else {})}
        described = {"description": field["description"]} if "description" in field else {}
        if field.get("default") is None:
            field.pop("default", None)
        for key in ("anyOf", "title", "description"):
            field.pop(key, None)
        yield {"name": name, "in": "query", "schema": field, **described}


def _headers(route: Route) -> Iterable[dict[str, Any]]:
    for name in (*route.takes.headers, *(("Last-Event-ID",) if route.varies else ())):
        yield {
            "name": name,
            "in": "header",
            "description": HEADERS[name],
            "schema": {"type": "string"},
        }


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for each in route.gives:
        if isinstance(each, ResponseSpec):
            responses[str(each.status)] = _answer(each)
    codes: dict[int, list[str]] = {}
    for error in _errors(route):
        codes.setdefault(status_of(error)[0], []).append(error.code)
    for status, named in sorted(codes.items()):
        responses[str(status)] = _problem(status, sorted(set(named)))
    responses["default"] = _problem(500, ["internal"])
    return responses


def _errors(route: Route) -> list[type[EventjobsError]]:
    """What the table says, and what follows from what the route takes and does."""
    listed = [each for each in route.gives if not isinstance(each, ResponseSpec)]
    listed.append(Misdirected)
    if route.method != "GET":
        listed += [CrossOrigin, *_WRITES]
    if route.method != "GET" or "If-Match" in route.takes.headers:
        listed.append(PreconditionFailed)
    if "{id}" in route.path:
        listed += [JobNotFound, JobGone] if route.method != "PUT" else [JobGone]
    if route.takes.media_type is not None:
        listed += _BODIES
    if route.takes.body is not None:
        listed += [MalformedJSON, InvalidInput]
    if route.takes.query is not None:
        listed.append(InvalidInput)
    return listed


def _answer(answer: ResponseSpec) -> dict[str, Any]:
    told: dict[str, Any] = {"description": answer.says}
    content = _content(answer.shape, answer.media_type)
    if content is not None:
        if answer.streams:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        told["content"] = content
    if answer.headers:
        told["headers"] = {
            name: {"description": HEADERS[name], "schema": {"type": "string"}}
            for name in answer.headers
        }
    return told


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    listed = ", ".join(f"`{code}`" for code in codes)
    return {
        "description": f"{HTTPStatus(status).phrase}: {listed}",
        "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMAS + Problem.__name__}}},
    }


def _content(model: type[BaseModel] | None, media_type: str | None) -> dict[str, Any] | None:
    if media_type is None:
        return None
    if model is None:
        return {media_type: {"schema": {"type": "string", "format": "binary"}}}
    if not media_type.endswith("json") or media_type.endswith("ndjson"):
        # Lines: the schema is of each one.
        return {media_type: {"schema": {"type": "string"}, "x-line-schema": _reference(model)}}
    return {media_type: {"schema": _reference(model)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS + model.__name__}


def _schemas(routes: tuple[Route, ...], handlers: HandlerRegistry) -> dict[str, Any]:
    takes = [each.takes for each in routes]
    bodies = {each.body for each in takes if each.body is not None}
    shapes = {
        each.shape
        for route in routes
        for each in route.gives
        if isinstance(each, ResponseSpec) and each.shape is not None
    }
    listed = sorted(bodies | shapes | {Event, Problem}, key=lambda each: each.__name__)
    inputs: list[tuple[Any, Literal["validation"]]] = [(each, "validation") for each in listed]
    _, made = models_json_schema(inputs, ref_template=SCHEMAS + "{model}")
    schemas: dict[str, Any] = made["$defs"]
    for each in takes:
        if each.query is not None:
            schema = each.query.model_json_schema(ref_template=SCHEMAS + "{model}")
            schemas |= schema.get("$defs", {})
    rules = list(_payloads(handlers, schemas))
    for model in (Submission, BatchLine):
        schema = schemas[model.__name__]
        schema["properties"]["type"] = {"enum": handlers.types(), "description": "which handler"}
        if rules:
            schema["allOf"] = rules
    return schemas


def _payloads(handlers: HandlerRegistry, schemas: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """A component `payload.<type>` for each handler with a model; how `type` picks it."""
    for each in handlers:
        if each.model is None:
            continue
        name = "payload." + re.sub(r"[^A-Za-z0-9._-]", "_", each.type)
        schema = each.model.model_json_schema(ref_template=f"{SCHEMAS}{name}.{{model}}")
        for inner, definition in schema.pop("$defs", {}).items():
            schemas[f"{name}.{inner}"] = definition
        schemas[name] = schema
        yield {
            "if": {"properties": {"type": {"const": each.type}}, "required": ["type"]},
            "then": {"properties": {"payload": {"$ref": SCHEMAS + name}}},
        }
