"""Trying the failed items of a job again, as a new job."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Response

from api import result_examples
from api.admission import check_room
from api.auth import OwnerDep
from api.errors import problems
from api.intake import Intake
from api.ownership import own_job
from api.schemas import JobOptions, JobOut, RetryIn
from api.services import Services, ServicesDep
from worker.jobs.errors import JobNotDone, JobRefused, ModelNotFound
from worker.jobs.record import ItemSpec, Job

POLL_S = 1

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
) -> JobOut:
    """Submit the failed items of a job that is done once more, to the same version of its model.

    The new job names this one as its `parent_job`; its items keep their ids, URLs, uploads and
    columns. Read `results?merge=parents` of the new job to see both as one.
    """
    parent = own_job(services, owner, job_id)
    job = _retry(services, parent, (wish or RetryIn()).only)
    response.headers.update({"Location": f"/jobs/{job.id}", "Retry-After": str(POLL_S)})
    return JobOut.of(job)


def _retry(services: Services, parent: Job, only: Literal["failed", "retryable"]) -> Job:
    """Make a job of the items of `parent` to be tried again.

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
    options = JobOptions(
        model=reference,
        name=parent.name,
        metadata=parent.metadata,
        webhook_url=parent.webhook_url,
    )
    with Intake(services, parent.owner, options, parent_job=parent.id) as intake:
        if parent.csv is not None:
            intake.shaped(parent.csv)
        for stored in services.store.results(parent):
            rejection = stored.result.rejection
            if rejection is not None and (only == "failed" or rejection.retryable):
                _add_again(services, parent, stored.index, stored.spec, intake)
        if not intake.count:
            raise JobRefused(f"{parent.id} has no {only} items: there is nothing to try again")
        return intake.finish()


def _add_again(services: Services, parent: Job, index: int, spec: ItemSpec, intake: Intake) -> None:
    payload = None
    if spec.url is None:
        payload = services.blobs.get(parent.id, spec.id)
        if payload is None:
            intake.refuse(f"the bytes of upload {index} are gone: submit the file again", spec.id)
            return
    again = ItemSpec(spec.id, spec.url, spec.filename, spec.columns, parent_index=index)
    intake.add(again, payload)
