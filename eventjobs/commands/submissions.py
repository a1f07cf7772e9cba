"""Submitting jobs: a specification is checked, completed from its handler, and appended."""

from eventjobs.commands.jobs import Jobs
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import UnknownJob


async def check_named(jobs: Jobs, spec: JobSpec) -> None:
    """Raises UnknownJob when *spec* names a job that is not there; a hidden one is."""
    named = [(f"after.{at}", each) for at, each in enumerate(spec.after)]
    if spec.parent is not None:
        named.append(("parent", spec.parent))
    missing = [
        {"field": field, "message": f"there is no job {job_id}"}
        for field, job_id in named
        if await jobs.load(job_id) is None
    ]
    if missing:
        raise UnknownJob(errors=missing)
