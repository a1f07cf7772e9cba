"""The log lines of dialect 001: one for each request of a job's status, and one for its outcome."""

from collections.abc import Awaitable

from eventjobs.commands.imports import job_directories
from eventjobs.errors import EventjobsError, JobGone, JobNotFound
from eventjobs.http.dialects.job_ids import BadJobId, IdForm
from eventjobs.observability.logging import get_logger, printable
from eventjobs.projections import JobView
from eventjobs.settings import Settings

#: Characters of an id that a line shows.
ID_CHARS_MAX = 100

_LOG = get_logger("eventjobs.dialects.001")


def start(settings: Settings) -> None:
    """Write a line for each directory whose files of jobs are served."""
    for each in job_directories(settings):
        _LOG.info(f"📁 JobStore initialized with base_dir: {printable(each)}")


async def log_request(
    text: str, lookup: Awaitable[tuple[IdForm, JobView]]
) -> tuple[IdForm, JobView]:
    """Await *lookup*, the job of the id *text*, and write the lines of its request.

    Raises what *lookup* raises.
    """
    shown = printable(text[:ID_CHARS_MAX])
    _LOG.info(f"📊 Job status request for job_id: {shown}")
    try:
        form, view = await lookup
    except (JobNotFound, JobGone):
        _LOG.info(f"ℹ️ Job {shown} not found (404)")  # noqa: RUF001  its sign, and no letter
        raise
    except BadJobId:
        _LOG.warning(f"⚠️ Invalid job_id format (not UUID): {shown}")
        raise
    except Exception as error:
        reason = error.code if isinstance(error, EventjobsError) else type(error).__name__
        _LOG.error(f"❌ Error getting job {shown}: {reason}")
        raise
    _LOG.info(f"✅ Returning job {shown} status: {view.job.status}")
    return form, view
