"""Who is calling: the owner of the API key, or anyone while no key is set up."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.services import ServicesDep
from worker.jobs.errors import Unauthorized
from worker.jobs.ledger.api_keys import ANYONE

_bearer = HTTPBearer(auto_error=False, description="An API key, once one is set up")


async def _owner(
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    if credentials is not None:
        key = await run_in_threadpool(services.keys.find, credentials.credentials)
        if key is None:
            raise Unauthorized("this API key is not known: it was mistyped or revoked")
        return key.owner
    keys = services.keys
    if not keys.required and (keys.none_lately or not await run_in_threadpool(keys.all)):
        return ANYONE
    raise Unauthorized("send an API key: Authorization: Bearer pq_…")


OwnerDep = Annotated[str, Depends(_owner)]
