"""Who is calling, and which jobs they may see: their own."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.foreign_requests import foreign_reason
from api.services import Services, ServicesDep
from worker.jobs.errors import ForeignRequest, JobNotFound, Unauthorized
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.record import Job

_bearer = HTTPBearer(auto_error=False, description="An API key; not needed while none exists")


async def _owner(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """Return the owner of the API key, or ANYONE while no key exists."""
    if credentials is not None:
        key = await run_in_threadpool(services.keys.find, credentials.credentials)
        if key is None:
            raise Unauthorized(
                "this API key is not known: check it for typing errors, or ask for a new one if "
                "it was revoked"
            )
        return key.owner
    keys = services.keys
    if not keys.required and (keys.none_lately or not await run_in_threadpool(keys.all)):
        reason = foreign_reason(request.method, request.headers, services.allowed_hosts)
        if reason is not None:
            raise ForeignRequest(reason)
        return ANYONE
    raise Unauthorized("this API needs a key: send the header Authorization: Bearer pq_…")


OwnerDep = Annotated[str, Depends(_owner)]


def own_job(services: Services, owner: str, job_id: str) -> Job:
    """Read a job of this owner.

    Raises:
        JobNotFound: there is no such job, or it belongs to another owner.
    """
    job = services.store.job(job_id)
    if job.owner != owner:
        raise JobNotFound(job_id)
    return job


def _own_job(job_id: str, services: ServicesDep, owner: OwnerDep) -> Job:
    return own_job(services, owner, job_id)


OwnJobDep = Annotated[Job, Depends(_own_job)]
