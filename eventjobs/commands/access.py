"""Access to one job: what the policy needs to know of it, read from the log."""

from eventjobs.auth.policy import Action, JobFacts, may_unmask, permits
from eventjobs.auth.principals import Principal
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job
from eventjobs.domain.mask import Mask

#: Only those who may do an action with the jobs of all owners may do it with a job of none.
_OF_NO_OWNER = JobFacts(None)


def permits_all(principal: Principal, action: Action) -> bool:
    """Whether *principal* may do *action* with every job."""
    return permits(principal, action, _OF_NO_OWNER)


async def permits_job(jobs: Jobs, principal: Principal, action: Action, job: Job) -> bool:
    """Whether *principal* may do *action* with *job*."""
    return permits(principal, action, _facts(job)) or permits(
        principal, action, await _facts_with_parent(jobs, principal, job)
    )


async def mask_for(jobs: Jobs, principal: Principal, job: Job) -> Mask | None:
    """The mask through which *principal* reads *job*; None if nothing is hidden from it."""
    if (
        not job.spec.sensitive
        or may_unmask(principal, _facts(job))
        or may_unmask(principal, await _facts_with_parent(jobs, principal, job))
    ):
        return None
    return Mask.of(job.spec)


def _facts(job: Job) -> JobFacts:
    return JobFacts(job.spec.owner, job.worker)


async def _facts_with_parent(jobs: Jobs, principal: Principal, job: Job) -> JobFacts:
    """The facts of *job*, with the worker of its parent if *principal* has workers."""
    facts = _facts(job)
    if job.spec.parent is None or not principal.worker_types:
        return facts
    parent = await jobs.load_even_parked(job.spec.parent)
    return facts if parent is None else facts._replace(parent_worker=parent.worker)


async def permits_id(jobs: Jobs, principal: Principal, action: Action, job_id: str) -> bool:
    """Whether *principal* may do *action* with the job of that id, if there is one.

    For a principal that may do it with every job, the job is not looked up.
    """
    if permits_all(principal, action):
        return True
    job = await jobs.load_even_parked(job_id)
    return job is not None and await permits_job(jobs, principal, action, job)
