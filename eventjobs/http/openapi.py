"""The OpenAPI 3.1 document, built from the routes, their models and the handlers."""

import inspect
import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from eventjobs.errors import (
    DiskFull,
    EventjobsError,
    InvalidCredential,
    InvalidInput,
    JobGone,
    JobNotFound,
    LogUnavailable,
    OutcomeUnknown,
    Overloaded,
    OwnerLimit,
    PreconditionFailed,
    TooLarge,
)
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.http.problem import MEDIA_TYPE, status_of
from eventjobs.http.request_errors import (
    BodyTimeout,
    CrossOrigin,
    Forbidden,
    MalformedJSON,
    Misdirected,
    RateLimited,
    RequestError,
    Unauthenticated,
    UnsupportedMediaType,
)
from eventjobs.http.routing import ResponseSpec, Route
from eventjobs.http.schemas.events import Event
from eventjobs.http.schemas.problem import DialectError, Problem
from eventjobs.http.schemas.submission import BatchLine, Submission
from eventjobs.version import __version__
from eventjobs.worker.wire import CHILD_HEADER

SCHEMAS = "#/components/schemas/"

#: The headers of requests and responses.
HEADERS = {
    "Authorization": "`Bearer` and the token of the attempt",
    "Idempotency-Key": "1 to 255 characters; requests with one key submit one job",
    CHILD_HEADER: "of a worker: the attempt whose child this is; its client library writes it",
    "If-Match": "the ETag of the job; 412, and nothing is done, when the job has another one",
    "If-None-Match": "the client's ETag; 304 when nothing changed; `*` with PUT: only a new job",
    "Prefer": "`wait=20`, with If-None-Match: answer when the job changes, or after 20 seconds",
    "Preference-Applied": "the wait that was applied",
    "Last-Event-ID": "of a stream: the last position received; it overrides `after`",
    "Range": "bytes of the file",
    "Content-Range": "the range of bytes in this response",
    "Location": "the job",
    "Set-Cookie": "the session, or its removal",
    "Retry-After": "seconds after which to ask again",
    "ETag": "the version of the resource",
    "Link": 'rel="next": the next page',
}

_IN_PATHS: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "format": "uuid"},
    "attempt": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}

BINARY = {"type": "string", "format": "binary"}
#: Content without a model that is no bytes, or may be anything.
_CONTENTS: dict[str, dict[str, Any]] = {
    "application/json": {"type": "object"},
    "*/*": {},
    "multipart/form-data": {
        "type": "object",
        "properties": {"file": BINARY},
        "required": ["file"],
        "additionalProperties": {"type": "string"},
    },
}

_WRITES = (Overloaded, LogUnavailable, OutcomeUnknown, DiskFull)
_BODIES = (RequestError, BodyTimeout, TooLarge, UnsupportedMediaType)


@lru_cache(maxsize=4)
def document(routes: tuple[Route, ...], handlers: HandlerRegistry, auth: str) -> bytes:
    """The document as JSON, for the mode *auth* of authentication."""
    schemas = _schemas(routes, handlers)
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, auth)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "eventjobs",
                "version": __version__,
                "description": "Submit work, run it, watch it live; every change is an event.",
            },
            "paths": paths,
            "components": {"schemas": schemas} | _security_schemes(auth),
        }
    )


def _operation(route: Route, auth: str) -> dict[str, Any]:
    description = inspect.getdoc(route.endpoint) or ""
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "summary": re.split(r"[.:;](?:\s|$)", description.replace("\n", " "))[0],
        "description": description,
        "parameters": [*_path(route.path), *_query(route.request.query), *_headers(route)],
        "responses": _responses(route, auth),
    }
    if auth != "off" and route.action is not None:
        operation["security"] = [{"bearer": []}] + ([{}] if auth == "optional" else [])
    if (content := _content(route.request.body, route.request.media_type)) is not None:
        operation["requestBody"] = {"content": content, "required": not route.request.optional}
    return operation


def _security_schemes(auth: str) -> dict[str, Any]:
    if auth == "off":
        return {}
    bearer = {"type": "http", "scheme": "bearer", "description": "an API key, or a token"}
    return {"securitySchemes": {"bearer": bearer}}


def _path(path: str) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        schema = _IN_PATHS.get(name, {"type": "string"})
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(model: type[BaseModel] | None) -> Iterable[dict[str, Any]]:
    if model is None:
        return
    schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
    for name, declared in schema["properties"].items():
        # A query string has no null: an optional parameter is left out.
        types = [each for each in declared.get("anyOf", ()) if each != {"type": "null"}]
        field = {**declared, **(types[0] if types else {})}
        described = {"description": field["description"]} if "description" in field else {}
        if field.get("default") is None:
            field.pop("default", None)
        for key in ("anyOf", "title", "description"):
            field.pop(key, None)
        yield {"name": name, "in": "query", "schema": field, **described}


def _headers(route: Route) -> Iterable[dict[str, Any]]:
    for name in (*route.request.headers, *(("Last-Event-ID",) if route.varies else ())):
        yield {
            "name": name,
            "in": "header",
            "description": HEADERS[name],
            "schema": {"type": "string"},
        }


def _responses(route: Route, auth: str) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for each in route.responses:
        if isinstance(each, ResponseSpec):
            responses[str(each.status)] = _response(each)
    codes: dict[int, list[str]] = {}
    for error in _errors(route, auth):
        codes.setdefault(status_of(error)[0], []).append(error.code)
    if route.error_format is not None:
        codes.pop(410, None)  # dialects say that a hidden job is not found
    for status, named in sorted(codes.items()):
        responses[str(status)] = _error(route, status, sorted(set(named)))
    responses["default"] = _error(route, 500, ["internal"])
    return responses


def _errors(route: Route, auth: str) -> list[type[EventjobsError]]:
    """The errors in the table of routes, and those that follow from the request and the path."""
    listed = [each for each in route.responses if not isinstance(each, ResponseSpec)]
    listed.append(Misdirected)
    if auth != "off" and route.action is not None:
        listed += [Unauthenticated, InvalidCredential, Forbidden]
    if route.kind is not None:
        listed += [RateLimited, OwnerLimit]
    if route.method != "GET":
        listed += [CrossOrigin, *_WRITES]
    if route.method != "GET" or "If-Match" in route.request.headers:
        listed.append(PreconditionFailed)
    if "{id}" in route.path:
        listed += [JobNotFound, JobGone]
    if route.request.media_type is not None:
        listed += _BODIES
    if route.request.body is not None:
        listed += [MalformedJSON, InvalidInput]
    if route.request.query is not None:
        listed.append(InvalidInput)
    return listed


def _response(response: ResponseSpec) -> dict[str, Any]:
    entry: dict[str, Any] = {"description": response.description}
    content = _content(response.model, response.media_type)
    if content is not None:
        if response.streams:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        entry["content"] = content
    if response.headers:
        entry["headers"] = {
            name: {"description": HEADERS[name], "schema": {"type": "string"}}
            for name in response.headers
        }
    return entry


def _error(route: Route, status: int, codes: list[str]) -> dict[str, Any]:
    media_type, model = MEDIA_TYPE, Problem.__name__
    if route.error_format is not None:
        media_type, model = "application/json", DialectError.__name__
    listed = ", ".join(f"`{code}`" for code in codes)
    return {
        "description": f"{HTTPStatus(status).phrase}: {listed}",
        "content": {media_type: {"schema": {"$ref": SCHEMAS + model}}},
    }


def _content(model: type[BaseModel] | None, media_type: str | None) -> dict[str, Any] | None:
    if media_type is None:
        return None
    if model is None:
        return {media_type: {"schema": _CONTENTS.get(media_type, BINARY)}}
    if not media_type.endswith("json") or media_type.endswith("ndjson"):
        # A sequence of lines: the schema describes each line.
        return {media_type: {"schema": {"type": "string"}, "x-line-schema": _reference(model)}}
    return {media_type: {"schema": _reference(model)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS + model.__name__}


def _schemas(routes: tuple[Route, ...], handlers: HandlerRegistry) -> dict[str, Any]:
    requests = [each.request for each in routes]
    bodies = {each.body for each in requests if each.body is not None}
    models = {
        each.model
        for route in routes
        for each in route.responses
        if isinstance(each, ResponseSpec) and each.model is not None
    }
    if any(each.error_format is not None for each in routes):
        models.add(DialectError)
    listed = sorted(bodies | models | {Event, Problem}, key=lambda each: each.__name__)
    inputs: list[tuple[Any, Literal["validation"]]] = [(each, "validation") for each in listed]
    _, generated = models_json_schema(inputs, ref_template=SCHEMAS + "{model}")
    schemas: dict[str, Any] = generated["$defs"]
    for each in requests:
        if each.query is not None:
            schema = each.query.model_json_schema(ref_template=SCHEMAS + "{model}")
            schemas |= schema.get("$defs", {})
    rules = list(_payloads(handlers, schemas))
    for model in (Submission, BatchLine):
        schema = schemas[model.__name__]
        schema["properties"]["type"] = {
            "enum": handlers.types(),
            "description": "which handler runs it",
        }
        if rules:
            schema["allOf"] = rules
    return schemas


def _payloads(handlers: HandlerRegistry, schemas: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The rules that select a payload's schema by `type`. Each handler with a model adds the
    component `payload.<type>` to *schemas*.
    """
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
