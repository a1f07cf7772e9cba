"""Access to one job: what the policy needs to know of it, read from the log."""

from eventjobs.auth.policy import Action, JobFacts, permits
from eventjobs.auth.principals import Principal
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job

#: Only those who may do an action with the jobs of all owners may do it with a job of none.
_OF_NO_OWNER = JobFacts(None)


def permits_all(principal: Principal, action: Action) -> bool:
    """Whether *principal* may do *action* with every job."""
    return permits(principal, action, _OF_NO_OWNER)


async def permits_job(jobs: Jobs, principal: Principal, action: Action, job: Job) -> bool:
    """Whether *principal* may do *action* with *job*."""
    facts = JobFacts(job.spec.owner, job.worker)
    if permits(principal, action, facts):
        return True
    if job.spec.parent is None or not principal.worker_types:
        return False
    parent = await jobs.load_even_parked(job.spec.parent)
    worker = None if parent is None else parent.worker
    return permits(principal, action, facts._replace(parent_worker=worker))


async def permits_id(jobs: Jobs, principal: Principal, action: Action, job_id: str) -> bool:
    """Whether *principal* may do *action* with the job of that id, if there is one.

    For a principal that may do it with every job, the job is not looked up.
    """
    if permits_all(principal, action):
        return True
    job = await jobs.load_even_parked(job_id)
    return job is not None and await permits_job(jobs, principal, action, job)
