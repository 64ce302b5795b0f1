"""Makes a job of the items of another one, once for each idempotency key."""

import hashlib
from collections.abc import Callable

from fastapi import Response
from starlette.concurrency import run_in_threadpool

from api.intake.idempotency import MakeEntry, create_once
from api.job_view import job_view, retry_after
from api.schemas import JobOut
from api.services import Services
from worker.jobs.record import Job


async def derive_job(
    services: Services,
    source: Job,
    request: str,
    idempotency_key: str | None,
    response: Response,
    create: Callable[[MakeEntry, str], str],
) -> JobOut:
    """Create the job, or find the one of an earlier equal `request`, and set response headers.

    `create` gets what makes the entry of the key, and the fingerprint of the request; it returns
    the id of the new job.
    """
    fingerprint = hashlib.sha256(request.encode()).hexdigest()
    job_id, replayed = await services.long_threads.run(
        source.owner,
        create_once,
        services,
        source.owner,
        idempotency_key,
        lambda: fingerprint,
        lambda make_entry: create(make_entry, fingerprint),
    )
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    view = await run_in_threadpool(job_view, services, job_id)
    response.headers.update({"Location": view.links.self, **retry_after(view)})
    return view
