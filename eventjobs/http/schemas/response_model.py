"""The base of all models of responses."""

from pydantic import BaseModel, ConfigDict, Field

Time = Field(json_schema_extra={"format": "date-time"})


class ResponseModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
