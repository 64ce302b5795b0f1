"""POST /scorefile/: scores one picture while the caller waits, through the queue of all jobs."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from api.auth import OwnerDep
from api.errors import problems
from api.intake.bodies import FORM, add_file, content_type
from api.intake.forms import read_parts
from api.intake.received import receive_body
from api.intake.submission import Submission, submit
from api.openapi.literals import SCOREFILE_BODY, SCORES
from api.schemas import JobOptions
from api.services import Services, ServicesDep
from worker.jobs.errors import JobRefused, NoAnswer, UploadRejected
from worker.jobs.record import Lane

router = APIRouter(tags=["one picture"])


@router.post(
    "/scorefile/",
    openapi_extra=SCOREFILE_BODY,
    responses={
        200: {"content": {"application/json": {"example": SCORES}}},
        **problems(400, 401, 408, 413, 415, 422, 429, 503),
    },
)
async def score_file(request: Request, services: ServicesDep, owner: OwnerDep) -> dict[str, float]:
    """Score one picture while the caller waits; returns the score of each label."""
    wait_s = services.settings.sync_timeout_s
    # FastAPI would read the whole body before it checks the API key, so the form is read here.
    if (kind := content_type(request)) != FORM:
        raise JobRefused(f"the content type is {kind or 'missing'}: send a file as {FORM}")
    async with receive_body(request) as body:
        threads, size = services.intake_threads, services.settings.max_item_bytes
        parts = read_parts(body.rewound(), request.headers["content-type"], size)
        submission = Submission(
            JobOptions(priority=Lane.INTERACTIVE), partial(add_file, parts), threads, ephemeral=True
        )
        awaited = partial(submit, awaited=True)
        job_id, _ = await threads.run(owner, awaited, services, owner, submission)
    store, stored = services.store, None
    read = partial(store.job_and_results, job_id)
    try:
        found = await services.job_events.wait_done(job_id, read, wait_s, store.ended_job)
        stored = next(found.results, None)
    finally:
        # A picture that has scores is deleted already.
        if not stored or stored.result.scores is None:
            await run_in_threadpool(_erase, services, job_id)
    if not stored:
        raise NoAnswer(f"no worker scored the picture within {wait_s:g} s: try again later")
    if rejection := stored.result.rejection:
        raise UploadRejected(f"{rejection.code}: {rejection.detail}")
    assert stored.result.scores is not None
    return found.model.answer(stored.result.scores)[0]


def _erase(services: Services, job_id: str) -> None:
    services.store.erase(job_id)
    services.blobs.erase(job_id)
