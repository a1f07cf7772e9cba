"""Ids of jobs as dialects write them: a UUID, or `job_` and the digits of the UUID."""

import re
from enum import Enum
from uuid import UUID

from eventjobs.domain.ids import parse_id, parse_prefixed_id
from eventjobs.errors import InvalidInput, JobNotFound
from eventjobs.http.request_errors import RequestError

PREFIX = "job_"
_PREFIXED = re.compile(PREFIX + r"[A-Za-z0-9_-]{1,64}")


class IdForm(Enum):
    """How an id is written, which decides in which dialect its job is rendered."""

    UUID = "uuid"
    PREFIXED = "prefixed"


class BadJobId(RequestError, code="bad_job_id", status=400):
    """Invalid job_id format (must be UUID)"""


def prefixed_id(job_id: str) -> str:
    """The id `job_…` of the job with this UUID."""
    return f"{PREFIX}{UUID(job_id).hex}"


def parse_any_id(text: str) -> tuple[IdForm, str]:
    """The form of *text*, and the UUID of the job.

    Raises BadJobId for another form, and JobNotFound for a `job_…` that is no job's here.
    """
    if _PREFIXED.fullmatch(text):
        if (job_id := parse_prefixed_id(text)) is None:
            raise JobNotFound
        return IdForm.PREFIXED, job_id
    try:
        return IdForm.UUID, parse_id(text)
    except InvalidInput as error:
        raise BadJobId from error


def uuid_of(text: str) -> str:
    """The UUID of the job with the id *text*. Raises JobNotFound, also for what is no id."""
    try:
        return parse_any_id(text)[1]
    except BadJobId as error:
        raise JobNotFound from error
