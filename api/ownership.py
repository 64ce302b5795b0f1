"""Jobs are seen by their owner only."""

from typing import Annotated

from fastapi import Depends

from api.auth import OwnerDep
from api.services import Services, ServicesDep
from worker.jobs.errors import JobNotFound
from worker.jobs.record import Job


def own_job(services: Services, owner: str, job_id: str) -> Job:
    """Read a job of this owner's; another's is as if it were not there.

    Raises:
        JobNotFound: it is another's, or there is none.
    """
    job = services.store.job(job_id)
    if job.owner != owner:
        raise JobNotFound(job_id)
    return job


def _own_job(job_id: str, services: ServicesDep, owner: OwnerDep) -> Job:
    return own_job(services, owner, job_id)


OwnJobDep = Annotated[Job, Depends(_own_job)]
