"""What schemathesis does not have: bodies of lines, and a check of requests without a credential.

It loads this file by itself.
"""

import json
from typing import Any

import schemathesis

#: The request needs a credential, has another method, or there were too many.
REFUSALS = frozenset({401, 405, 429})
#: More take long to draw.
LINES_MAX = 2


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Describe a body of lines as a list of what each line is."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if "x-line-schema" in content:
                    lines = {"items": content["x-line-schema"], "maxItems": LINES_MAX}
                    content["schema"] = {"type": "array", **lines}


@schemathesis.serializer("application/x-ndjson")
def write_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """One line for each item; what is no list is one line."""
    lines = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


@schemathesis.check
def refused_without_credential(
    context: schemathesis.CheckContext,
    response: schemathesis.Response,
    case: schemathesis.Case[Any],
) -> None:
    """An operation with a security requirement is refused before anything else."""
    needed = case.operation.definition.raw.get("security", [{}])
    sent = "Authorization" in response.request.headers
    assert sent or {} in needed or response.status_code in REFUSALS, (
        f"without a credential {case.operation.label} was answered with {response.status_code}"
    )
