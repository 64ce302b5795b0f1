"""POST /jobs/{id}/rescore: the kept features of a job, scored by another model as a new job."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from api.auth import OwnJobDep
from api.errors import problems
from api.intake.admission import check_capacity
from api.intake.bodies import read_object
from api.intake.derived_job import derive_job
from api.intake.idempotency import MakeEntry
from api.intake.job_builder import JobBuilder
from api.job_view import require_done
from api.openapi.literals import RESCORE_BODY, RESCORED
from api.schemas import JobOptions, JobOut, RescoreIn
from api.services import Services, ServicesDep
from worker.jobs.errors import JobRefused
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/{job_id}/rescore",
    status_code=202,
    openapi_extra=RESCORE_BODY,
    responses={
        202: {"description": "The new job", "content": RESCORED},
        **problems(400, 401, 404, 408, 409, 413, 415, 422, 429, 503),
    },
)
async def rescore_job(
    scored: OwnJobDep,
    request: Request,
    response: Response,
    services: ServicesDep,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobOut:
    """Score the features that a finished job has kept, with models that have the same backbone.

    The new job has the same items, and this one as its `rescore_of`. No picture is fetched or
    decoded, but those without kept features: they are fetched again from their URLs, and an upload
    without features fails.
    """
    body = await read_object(request, RescoreIn)
    create = partial(_rescore, services, scored, body)
    asked = f"rescore {scored.id} {body.model_dump_json()}"
    return await derive_job(services, scored, asked, idempotency_key, response, create)


def _rescore(
    services: Services, scored: Job, body: RescoreIn, make_entry: MakeEntry, fingerprint: str
) -> str:
    """Create a job of the items of `scored`; return its id.

    Raises:
        JobNotDone: it still runs.
        PiqueueError: it keeps no features for the models, or the new job was refused.
    """
    require_done(scored, "rescore it")
    options = JobOptions.model_validate({"name": scored.name, **body.model_dump(exclude_none=True)})
    _check_backbones(services, scored, services.catalog.resolve(options.reference))
    check_capacity(services, scored.owner, scored.counts.finished)
    with JobBuilder(services, scored.owner, options, rescore_of=scored.id) as builder:
        builder.csv = scored.csv
        for index, spec in services.store.finished_specs(scored):
            builder.add_admitted(spec._replace(parent_index=index))
        return builder.finish(make_entry(fingerprint, builder.job_id))


def _check_backbones(services: Services, scored: Job, model: ModelCard) -> None:
    """Raise JobRefused if the job cannot have features for a model."""
    if scored.rescore_of is not None:
        raise JobRefused(
            f"{scored.id} was scored from the features of {scored.rescore_of}: send the request "
            "for that job"
        )
    if not scored.keep_features:
        raise JobRefused(
            f"{scored.id} was submitted without keep_features: submit its pictures again"
        )
    before = services.store.model(scored.id)
    kept = {part.backbone for part in before.parts or (before,)} - {None}
    for part in model.parts or (model,):
        if part.backbone not in kept:
            raise JobRefused(
                f"{scored.id} has no features for {part.name}, which has another backbone than "
                f"{before.name}: submit its pictures again"
            )
