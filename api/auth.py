"""Who is calling, what their key allows, and which jobs they may see: their own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.concurrency import run_in_threadpool

from api.foreign_requests import READS, foreign_reason
from api.services import Services, ServicesDep
from worker.jobs.errors import (
    ForeignRequest,
    JobNotFound,
    LedgerUnavailable,
    ScopeMissing,
    Unauthorized,
    WrongKeysSent,
)
from worker.jobs.ledger.api_keys import ANYONE, ApiKey, KeyStore, Scope
from worker.jobs.record import Job

_bearer = HTTPBearer(auto_error=False, description="An API key; not needed while none exists")
# The caller while no key exists.
_KEYLESS = ApiKey(owner=ANYONE, name=ANYONE)

log = structlog.get_logger()


async def _caller(
    needed: SecurityScopes,
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> AsyncIterator[ApiKey]:
    """Give the key of the caller, which allows what the route needs, and count the request.

    A route that names no scope needs `read` for requests that change nothing, else `submit`.
    """
    if credentials is None:
        key = await _without_key(request, services)
    else:
        key = await _with_key(request, services, credentials.credentials)
    default = Scope.READ if request.method in READS else Scope.SUBMIT
    for scope in map(Scope, needed.scopes or [default]):
        if not key.allows(scope):
            raise ScopeMissing(
                f"this API key has the scope {' and '.join(key.scopes)}, and this request needs "
                f"{scope}: use a key that was made with `piqueue keys add NAME --scope {scope}`"
            )
    with services.open_requests.count(key.owner):
        yield key


async def _with_key(request: Request, services: Services, key: str) -> ApiKey:
    keys = services.keys
    try:
        found = await run_in_threadpool(keys.find, key)
    except Unauthorized:
        address = request.client.host if request.client else ""
        wait_s = services.wrong_keys.count(address)
        if not wait_s:
            raise
        raise WrongKeysSent(
            f"too many wrong API keys came from {address}: try again in {wait_s} s, with a key "
            "that is valid",
            wait_s,
        ) from None
    structlog.contextvars.bind_contextvars(key_name=found.name)
    if keys.use_is_due(found):
        # Nothing waits for it.
        asyncio.get_running_loop().run_in_executor(None, _record_use, keys, found)
    return found


async def _without_key(request: Request, services: Services) -> ApiKey:
    keys = services.keys
    if keys.required or not (keys.none_lately or await run_in_threadpool(keys.none)):
        raise Unauthorized("this API needs a key: send the header Authorization: Bearer pq_…")
    origins = services.settings.cors_origins
    reason = foreign_reason(request.method, request.headers, services.allowed_hosts, origins)
    if reason is not None:
        raise ForeignRequest(reason)
    return _KEYLESS


def _record_use(keys: KeyStore, key: ApiKey) -> None:
    try:
        keys.record_use(key)
    except LedgerUnavailable as error:
        log.warning("key_use_not_recorded", reason=str(error))


CallerDep = Annotated[ApiKey, Security(_caller)]
# For reads that need a scope of their own: a secret, and the metrics of all owners.
SubmitterDep = Annotated[ApiKey, Security(_caller, scopes=[Scope.SUBMIT])]
ScraperDep = Annotated[ApiKey, Security(_caller, scopes=[Scope.METRICS])]


# FastAPI would run it in a thread if it were not async.
async def _owner(caller: CallerDep) -> str:
    return caller.owner


OwnerDep = Annotated[str, Depends(_owner)]


async def _read_slot(owner: OwnerDep, services: ServicesDep) -> AsyncIterator[None]:
    async with services.read_threads.slot(owner):
        yield


async def _scrape_slot(scraper: ScraperDep, services: ServicesDep) -> AsyncIterator[None]:
    async with services.read_threads.slot(scraper.owner):
        yield


# For routes that read much: an owner has few of them in progress, so that others find threads.
READ_SLOT = Depends(_read_slot, scope="function")
SCRAPE_SLOT = Depends(_scrape_slot, scope="function")


def own_job(services: Services, caller: ApiKey, job_id: str) -> Job:
    """Read a job of this caller, or with the scope `operate` that of any.

    Raises:
        JobNotFound: there is no such job, or it belongs to another owner.
    """
    job = services.store.job(job_id)
    if job.owner != caller.owner and not caller.allows(Scope.OPERATE):
        raise JobNotFound(job_id)
    return job


def _own_job(job_id: str, services: ServicesDep, caller: CallerDep) -> Job:
    return own_job(services, caller, job_id)


OwnJobDep = Annotated[Job, Depends(_own_job)]
