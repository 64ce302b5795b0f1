"""Trying the failed items of a job again, as a new job."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import tee
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Header, Response

from api.auth import OwnerDep
from api.errors import problems
from api.intake.admission import check_room
from api.intake.idempotency import once
from api.intake.job_builder import JobBuilder
from api.job_view import retry_after, show
from api.openapi import result_examples
from api.ownership import own_job
from api.schemas import JobOptions, JobOut, RetryIn
from api.services import Services, ServicesDep
from worker.jobs.errors import JobNotDone, JobRefused, ModelNotFound
from worker.jobs.ledger.new_job import ExpiringKey
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import Job

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    responses={
        202: {"description": "The new job", "content": result_examples.RETRIED},
        **problems(400, 401, 404, 409, 413, 422, 429, 503),
    },
)
def retry_job(
    job_id: str,
    response: Response,
    services: ServicesDep,
    owner: OwnerDep,
    wish: Annotated[RetryIn | None, Body(openapi_examples=result_examples.RETRIES)] = None,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobOut:
    """Submit the failed items of a job that is done once more, to the same version of its model.

    The new job names this one as its `parent_job` and has the options it was submitted with; its
    items keep their ids, URLs, uploads and columns. Read `results?merge=parents` of the new job to
    see both as one.
    """
    parent = own_job(services, owner, job_id)
    only = (wish or RetryIn()).only
    if idempotency_key is None:
        job = _retry(services, parent, only)
    else:
        fingerprint = hashlib.sha256(f"retry {only} of {parent.id}".encode()).hexdigest()
        job, replayed = once(
            services,
            owner,
            idempotency_key,
            lambda: fingerprint,
            lambda noting: _retry(services, parent, only, partial(noting, fingerprint)),
        )
        if replayed:
            response.headers["Idempotency-Replayed"] = "true"
    shown = show(services, job.id)
    response.headers.update({"Location": f"/jobs/{job.id}", **retry_after(shown)})
    return shown


def _retry(
    services: Services,
    parent: Job,
    only: Literal["failed", "retryable"],
    noting: Callable[[str], ExpiringKey] | None = None,
) -> Job:
    """Make a job of the items of `parent` to be tried again; `noting` gives the note of its id.

    Raises:
        JobNotDone: the parent still runs.
        ModelNotFound: its model was removed or replaced.
        PiqueueError: there are no such items, or the new job was refused.
    """
    if not parent.status.done:
        raise JobNotDone(f"{parent.id} is {parent.status}: retry it once it is done")
    check_room(services, parent.owner, 1)
    reference = f"{parent.model.name}@{parent.model.version}"
    if services.catalog.resolve(reference).sha256 != parent.model.sha256:
        raise ModelNotFound(f"{reference} is not the model any more that {parent.id} was scored by")
    options = JobOptions.model_validate({**services.store.options(parent.id), "model": reference})
    with JobBuilder(services, parent.owner, options, parent_job=parent.id) as intake:
        if parent.csv is not None:
            intake.shaped(parent.csv)
        for stored, payload in _with_uploads(
            services, parent, _tried_again(services, parent, only)
        ):
            spec = replace(stored.spec, parent_index=stored.index)
            if spec.url is None and payload is None:
                gone = f"the bytes of upload {stored.index} are gone: submit the file again"
                intake.refuse(gone, spec.id)
            else:
                intake.add(spec, payload)
        if not intake.count:
            raise JobRefused(f"{parent.id} has no {only} items: there is nothing to try again")
        return intake.finish(noting and noting(intake.job_id))


def _tried_again(
    services: Services, parent: Job, only: Literal["failed", "retryable"]
) -> Iterator[StoredResult]:
    for stored in services.store.results(parent):
        rejection = stored.result.rejection
        if rejection is not None and (only == "failed" or rejection.retryable):
            yield stored


def _with_uploads(
    services: Services, parent: Job, items: Iterator[StoredResult]
) -> Iterator[tuple[StoredResult, bytes | None]]:
    """Give each item with its uploaded bytes, None where there are none."""
    items, ahead = tee(items)
    ids = (stored.spec.id for stored in ahead if stored.spec.url is None)
    payloads = services.blobs.get(parent.id, ids)
    for stored in items:
        yield stored, next(payloads) if stored.spec.url is None else None
