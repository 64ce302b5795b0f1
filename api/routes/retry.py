"""POST /jobs/{id}/retry: the failed items of a job, submitted again as a new job."""

from collections.abc import Iterator
from functools import partial
from itertools import tee
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Request, Response

from api.auth import OwnJobDep
from api.errors import problems
from api.intake.admission import check_capacity
from api.intake.bodies import read_object
from api.intake.derived_job import derive_job
from api.intake.idempotency import MakeEntry
from api.intake.job_builder import JobBuilder, pinned_options
from api.job_view import require_done
from api.openapi.literals import RETRIED, RETRY_BODY
from api.schemas import JobOut, RetryIn
from api.services import Services, ServicesDep
from worker.jobs.errors import JobRefused, ModelNotFound
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Job

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    openapi_extra=RETRY_BODY,
    responses={
        202: {"description": "The new job", "content": RETRIED},
        **problems(400, 401, 404, 408, 409, 413, 415, 422, 429, 503),
    },
)
async def retry_job(
    parent: OwnJobDep,
    request: Request,
    response: Response,
    services: ServicesDep,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobOut:
    """Submit the failed items of a finished job again, to the same version of its model.

    The new job has this one as its `parent_job`, and the same options. Its items keep their ids,
    URLs, uploads and columns. Read `results?merge=parents` of the new job for the results of both.
    """
    only = (await read_object(request, RetryIn)).only
    create = partial(_retry, services, parent, only)
    asked = f"retry {only} of {parent.id}"
    return await derive_job(services, parent, asked, idempotency_key, response, create)


def _retry(
    services: Services,
    parent: Job,
    only: Literal["failed", "retryable"],
    make_entry: MakeEntry,
    fingerprint: str,
) -> str:
    """Create a job of the failed items of `parent`; return its id.

    Raises:
        JobNotDone: the parent still runs.
        ModelNotFound: its model was removed or replaced.
        PiqueueError: it has no such items, or the new job was refused.
    """
    require_done(parent, "retry it")
    check_capacity(services, parent.owner, 1)
    reference = parent.model.text
    if services.catalog.resolve(reference).sha256 != parent.model.sha256:
        raise ModelNotFound(
            f"{reference} was replaced since it scored {parent.id}: submit the items as a new job"
        )
    options = pinned_options(services, parent)
    with JobBuilder(services, parent.owner, options, parent_job=parent.id) as builder:
        builder.csv = parent.csv
        failed = (
            stored
            for stored in services.store.results(parent)
            if (rejection := stored.result.rejection) and (only == "failed" or rejection.retryable)
        )
        for stored, payload in _with_uploads(services, parent, failed):
            spec = stored.spec._replace(parent_index=stored.index)
            if spec.url is None and payload is None:
                gone = f"the bytes of upload {stored.index} are gone: submit the file again"
                builder.add_problem(gone, spec.id)
            else:
                builder.add(spec, payload)
        if not builder.count:
            raise JobRefused(
                f"{parent.id} has no {only} items, so there is nothing to retry: read its results"
            )
        return builder.finish(make_entry(fingerprint, builder.job_id))


def _with_uploads(
    services: Services, parent: Job, items: Iterator[StoredResult]
) -> Iterator[tuple[StoredResult, bytes | None]]:
    """Pair each item with its uploaded bytes, or None if there are none."""
    items, ahead = tee(items)
    ids = (stored.spec.id for stored in ahead if stored.spec.url is None)
    payloads = services.blobs.get(parent.id, ids)
    for stored in items:
        yield stored, next(payloads) if stored.spec.url is None else None
