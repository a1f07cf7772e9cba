"""The handlers of the campaign: with any payload, with a model, and for remote workers."""

from typing import Any

from pydantic import BaseModel, Field

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote


class Line(BaseModel):
    text: str = Field(min_length=1)


class Letter(BaseModel):
    lines: list[Line]


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("letter.write", sensitive=["lines"])
async def write(context: Context, payload: Letter) -> int:
    context.progress(1, 2, stage="draft", data={"lines": len(payload.lines)})
    return len(payload.lines)


@handler("draw", max_attempts=1)
async def draw(context: Context, payload: Any) -> None:
    await context.artifact("0", b"<svg/>", "image/svg+xml")
    raise ValueError("no")


HANDLERS = [echo, write, draw, remote("far")]
