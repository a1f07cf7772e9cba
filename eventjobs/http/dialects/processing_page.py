"""What the processing page of dialect 002 shows of a job: its stages, what is left, its error."""

from typing import Any, NamedTuple

from eventjobs.domain.error_codes import error_class
from eventjobs.domain.job import Job, Status
from eventjobs.http.dialects.file_types import media_type_of, original_name
from eventjobs.http.dialects.job_ids import prefixed_id
from eventjobs.http.dialects.times import seconds
from eventjobs.projections import JobView

#: How often a user may run a job: at its submission, and by retries. Each run has all the attempts
#: of the job's type.
RUNS_MAX = 3
#: The completion hook whose record the page redirects to.
STORY = "story"


class PageStage(NamedTuple):
    """A stage of the page: handlers report it by one of *names*, and fail in it with *code*."""

    label: str
    description: str
    names: frozenset[str]
    code: str


STAGES = (
    PageStage(
        "Uploading",
        "Reading your file",
        frozenset({"uploading", "reading", "parsing", "preprocessing"}),
        "PREPROCESSING_ERROR",
    ),
    PageStage("Analyzing", "Computing the statistics", frozenset({"analyzing"}), "ANALYSIS_ERROR"),
    PageStage(
        "Generating",
        "Putting the numbers into words",
        frozenset({"generating", "narrating"}),
        "NARRATIVE_GENERATION_ERROR",
    ),
    PageStage(
        "Visualizing",
        "Drawing the charts",
        frozenset({"visualizing", "charting"}),
        "VISUALIZATION_ERROR",
    ),
)
#: The code of all other errors.
OTHER_ERROR = "PROCESSING_ERROR"
CODES = frozenset({OTHER_ERROR, *(each.code for each in STAGES)})


def page_fields(view: JobView, error: str | None) -> dict[str, Any]:
    """The fields of the page. *error* says why the job failed or was cancelled."""
    job = view.job
    details = None
    if error is not None:
        details = {
            "code": _error_code(view),
            "message": error,
            "timestamp": seconds(job.finished_us),
            "canRetry": may_retry(job),
        }
    return {
        "jobId": prefixed_id(job.job_id),
        "attempt": job.retries + 1,
        "canRetry": may_retry(job),
        "storyId": _story_id(job),
        "errorDetails": details,
        "stages": _stages(view),
        "etaSeconds": _eta_s(view),
        "metadata": _metadata(job),
    }


def _story_id(job: Job) -> str | None:
    """The id, or the URL, of the record that the completion hook "story" has made."""
    return next((each.id or each.url for each in job.hooks if each.name == STORY), None)


def may_retry(job: Job) -> bool:
    """Whether a user may run the job again."""
    return job.can_retry and job.retries + 1 < RUNS_MAX


def _error_code(view: JobView) -> str:
    """The code that the handler gave, if it is one of the page; else that of the stage."""
    code = view.job.error["code"] if view.job.error is not None else ""
    if code in CODES:
        return str(code)
    of_handler = error_class(code) in ("handler", "dependency")
    place = _place(view)
    return STAGES[place].code if code and of_handler and place is not None else OTHER_ERROR


def _place(view: JobView) -> int | None:
    """The number of the stage that the handler has reported last, if the page has it."""
    name = None if view.progress is None else view.progress.stage
    return next((at for at, stage in enumerate(STAGES) if name in stage.names), None)


def _stages(view: JobView) -> list[dict[str, str]]:
    job, progress, _ = view
    status, place = Status(job.status), 0
    if status is Status.COMPLETED:
        place = len(STAGES)
    elif status is not Status.QUEUED:
        named = _place(view)
        fraction = 0.0 if progress is None else progress.fraction
        place = min(int(fraction * len(STAGES)), len(STAGES) - 1) if named is None else named
    here = "failed" if job.finished else "active"
    return [
        {
            "name": stage.label,
            "description": stage.description,
            "status": "done" if at < place else here if at == place else "pending",
        }
        for at, stage in enumerate(STAGES)
    ]


def _eta_s(view: JobView) -> int | None:
    """The middle of the estimate in whole seconds."""
    if view.job.status == Status.COMPLETED:
        return 0
    estimate = view.estimate
    if estimate is None or estimate.low_s is None or estimate.high_s is None:
        return None
    return round((estimate.low_s + estimate.high_s) / 2)


def _metadata(job: Job) -> dict[str, Any] | None:
    """The uploaded file; None for a job without one."""
    if not job.spec.artifacts:
        return None
    file = job.spec.artifacts[0]
    return {
        "fileName": original_name(job.spec.tags) or file.name,
        "fileSize": file.size,
        "fileType": media_type_of(file.name),
    }
