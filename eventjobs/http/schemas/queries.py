"""Query strings of lists, event pages and streams."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from eventjobs.domain.ids import parse_id
from eventjobs.domain.job import Status
from eventjobs.domain.timestamps import microseconds
from eventjobs.domain.validation import Moment
from eventjobs.errors import InvalidInput
from eventjobs.http.cursors import POSITION_MAX
from eventjobs.http.request_errors import query_error
from eventjobs.http.streams.job_filter import JobFilter


def _parts(values: object) -> object:
    """`a=1&a=2,3` is ["1", "2", "3"], and `a=` is None."""
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
    """The jobs of a list, and their order."""

    id: Names = Field(None, description="these jobs; repeated, or with commas")
    status: Statuses = Field(None, description="any of these")
    type: Names = Field(None, description="any of these")
    tag: str | None = Field(None, description="jobs with this tag")
    owner: str | None = None
    queue: str | None = Field(None, description="jobs of this queue")
    parent: str | None = Field(None, description="children of this job")
    since: Moment | None = Field(None, description="submitted at this time or later")
    until: Moment | None = Field(None, description="submitted before this time")
    order: Literal["newest", "oldest"] = "newest"
    limit: int = Field(50, ge=1, description="jobs of one page; the service has a maximum")
    cursor: str | None = Field(None, description="`next` of the page before")
    after: Position | None = Field(None, description="of a stream: the last position received")

    def filters(self, ids_max: int) -> dict[str, Any]:
        """The filters of Views.jobs. Raises InvalidInput."""
        return {
            "job_id": self.id and _parse_ids(self.id, ids_max),
            "status": self.status and sorted(set(self.status)),
            "type": self.type and sorted(set(self.type)),
            "tag": self.tag,
            "owner": self.owner,
            "queue": self.queue,
            "parent": self.parent and _parse_id("parent", self.parent),
            "since_us": self.since and microseconds(self.since),
            "until_us": self.until and microseconds(self.until),
        }

    def selection(self, ids_max: int) -> JobFilter:
        """The filter of a stream. Raises InvalidInput."""
        for name in ("since", "until", "cursor"):
            if getattr(self, name) is not None:
                raise query_error(name, "a stream has no past; leave it out")
        return JobFilter(
            ids=_set(self.id and _parse_ids(self.id, ids_max)),
            type=_set(self.type),
            owner=self.owner,
            queue=self.queue,
            parent=self.parent and _parse_id("parent", self.parent),
            tag=self.tag,
            status=_set(self.status),
        )


class JobQuery(Query):
    """The position after which a stream of one job continues."""

    after: Position | None = Field(None, description="of a stream: the last position received")


class EventsQuery(Query):
    """A page of events."""

    after: Position | None = Field(None, description="events after this position only")
    limit: int = Field(100, ge=1, description="events of one page; the service has a maximum")
    wait: float = Field(0, ge=0, description="seconds to wait for a first event")


class AllEventsQuery(EventsQuery):
    """A page of events of selected jobs."""

    id: Names = Field(None, description="of these jobs; repeated, or with commas")
    type: Names = Field(None, description="of jobs of these types")

    def selection(self, ids_max: int) -> JobFilter:
        """The filter of a page or stream. Raises InvalidInput."""
        return JobFilter(ids=_set(self.id and _parse_ids(self.id, ids_max)), type=_set(self.type))


def _parse_ids(texts: Iterable[str], ids_max: int) -> list[str]:
    """*texts*, at most *ids_max*, as distinct job ids, sorted. Raises InvalidInput."""
    ids = sorted({_parse_id("id", each) for each in texts})
    if len(ids) > ids_max:
        raise query_error("id", f"at most {ids_max} jobs")
    return ids


def _parse_id(name: str, text: str) -> str:
    """*text* as the job id of the parameter *name*. Raises InvalidInput."""
    try:
        return parse_id(text)
    except InvalidInput as error:
        raise query_error(name, error.message) from error


def _set(values: Iterable[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
