"""Bodies of the routes of API keys."""

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class Key(ResponseModel):
    """An API key, without its secret."""

    key_id: str
    name: str
    owner: str = Field(description="of the jobs that are submitted with it")
    scopes: list[str]
    created_at: str = Time
    actor: str = Field(description="the principal that created it")
    expires_at: str | None = Time
    last_used_at: str | None = Time


class CreatedKey(Key):
    """A new API key. Only this answer has the *key*, which is sent as a bearer token."""

    key: str


class KeyList(ResponseModel):
    keys: list[Key]
    next: str | None = Field(description="the cursor of the next page")
