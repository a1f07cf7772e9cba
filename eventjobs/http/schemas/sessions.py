"""Bodies of logging in, and of the question who is logged in."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class Login(BaseModel):
    """The API key or token that a session begins with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    credential: str = Field(min_length=1, max_length=8192)


class Session(ResponseModel):
    """The principal of the request, and when its session, key or token expires."""

    mode: Literal["off", "optional", "required"] = Field(
        description="off: everything is permitted; optional: a credential may be left out"
    )
    name: str = Field(description="the actor of its events")
    owner: str | None = Field(description="whose jobs it submits")
    scopes: list[str]
    expires_at: str | None = Time
