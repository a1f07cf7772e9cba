"""What a query string may say, and the cursors that continue a list."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from eventjobs.domain.ids import parse_id
from eventjobs.domain.job import Status
from eventjobs.domain.validation import EPOCH, MICROSECOND, Moment
from eventjobs.errors import InvalidInput
from eventjobs.http.cursors import POSITION_MAX
from eventjobs.http.streams.job_filter import JobFilter


def _parts(values: object) -> object:
    """`a=1&a=2,3` is ["1", "2", "3"], and `a=` is nothing."""
    if not isinstance(values, list):
        return values
    return [part for value in values for part in str(value).split(",") if part] or None


Many = BeforeValidator(_parts)
Names = Annotated[list[str] | None, Many]
Statuses = Annotated[list[Status] | None, Many]
Position = Annotated[int, Field(ge=0, le=POSITION_MAX)]


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobsQuery(Query):
    """Which jobs, in which order."""

    id: Names = Field(None, description="these jobs; repeated, or with commas")
    status: Statuses = Field(None, description="any of these")
    type: Names = Field(None, description="any of these")
    tag: str | None = Field(None, description="jobs that carry it")
    owner: str | None = None
    queue: str | None = Field(None, description="jobs that wait, or waited, in it")
    parent: str | None = Field(None, description="jobs that are a part of this one")
    since: Moment | None = Field(None, description="submitted at this time or later")
    until: Moment | None = Field(None, description="submitted before this time")
    order: Literal["newest", "oldest"] = "newest"
    limit: int = Field(50, ge=1, description="jobs of one page; the service has a maximum")
    cursor: str | None = Field(None, description="`next` of the page before")
    after: Position | None = Field(None, description="of a stream: the position seen last")

    def filters(self, ids_max: int) -> dict[str, Any]:
        """What Views.jobs filters by. Raises InvalidInput."""
        return {
            "job_id": self.id and job_ids(self.id, ids_max),
            "status": self.status and sorted(set(self.status)),
            "type": self.type and sorted(set(self.type)),
            "tag": self.tag,
            "owner": self.owner,
            "queue": self.queue,
            "parent": self.parent and parse_id_of("parent", self.parent),
            "since_us": self.since and (self.since - EPOCH) // MICROSECOND,
            "until_us": self.until and (self.until - EPOCH) // MICROSECOND,
        }

    def selection(self, ids_max: int) -> JobFilter:
        """The same for a stream. Raises InvalidInput."""
        for name in ("since", "until", "cursor"):
            if getattr(self, name) is not None:
                raise unfit(name, "a stream has no past; leave it out")
        return JobFilter(
            ids=_set(self.id and job_ids(self.id, ids_max)),
            type=_set(self.type),
            owner=self.owner,
            queue=self.queue,
            parent=self.parent and parse_id_of("parent", self.parent),
            tag=self.tag,
            status=_set(self.status),
        )


class JobQuery(Query):
    """Where a stream of one job continues."""

    after: Position | None = Field(None, description="of a stream: the position seen last")


class EventsQuery(Query):
    """Which part of the facts."""

    after: Position | None = Field(None, description="facts above this position only")
    limit: int = Field(100, ge=1, description="facts of one page; the service has a maximum")
    wait: float = Field(0, ge=0, description="seconds to wait for a first fact")


class AllEventsQuery(EventsQuery):
    """Which part of the facts, and whose."""

    id: Names = Field(None, description="of these jobs; repeated, or with commas")
    type: Names = Field(None, description="of jobs of these types")

    def selection(self, ids_max: int) -> JobFilter:
        """Raises InvalidInput."""
        return JobFilter(ids=_set(self.id and job_ids(self.id, ids_max)), type=_set(self.type))


def last_event_id(request: web.BaseRequest) -> str | None:
    """The cursor of an EventSource that cannot send Last-Event-ID: `lastEventId` and its like."""
    for name, value in request.query.items():
        if name.replace("-", "").replace("_", "").lower() == "lasteventid":
            return value
    return None


def job_ids(texts: Iterable[str], ids_max: int) -> list[str]:
    """Raises InvalidInput."""
    try:
        ids = sorted({parse_id(each) for each in texts})
    except InvalidInput as error:
        raise unfit("id", error.message) from error
    if len(ids) > ids_max:
        raise unfit("id", f"at most {ids_max} jobs")
    return ids


def parse_id_of(name: str, text: str) -> str:
    """Raises InvalidInput."""
    try:
        return parse_id(text)
    except InvalidInput as error:
        raise unfit(name, error.message) from error


def unfit(name: str, message: str) -> InvalidInput:
    return InvalidInput("the query does not fit", [{"field": name, "message": message}])


def _set(values: Iterable[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
