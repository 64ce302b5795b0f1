"""POST /scorefile/: one picture, its scores at once, through the same queue and workers."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from api.auth import OwnerDep
from api.errors import problems
from api.intake.bodies import add_files, file_name
from api.intake.submission import Submission, take_in
from api.job_view import show
from api.schemas import JobOptions
from api.services import ServicesDep
from worker.jobs.errors import JobRefused, NoAnswer, UploadRejected
from worker.jobs.record import Lane

router = APIRouter(tags=["one picture"])

_SCORES = {"beach": 0.0, "city": 0.999, "sunset": 0.005, "trees": 0.0}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post(
    "/scorefile/",
    openapi_extra=_BODY,
    responses={
        200: {"content": {"application/json": {"example": _SCORES}}},
        **problems(400, 401, 413, 422, 429, 503),
    },
)
async def score_file(request: Request, services: ServicesDep, owner: OwnerDep) -> dict[str, float]:
    """Score one picture while the caller waits; gives each label's score."""
    store, wait_s = services.store, services.settings.sync_timeout_s
    # Read by hand: FastAPI would take in the whole body before it looks at the API key.
    async with request.form(max_files=1) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise JobRefused("send one picture as a file named `file`, in a multipart form")
        files, size = [(file_name(file) or "file", file.file)], services.settings.max_item_bytes
        submission = Submission(
            JobOptions(priority=Lane.INTERACTIVE),
            lambda sink: add_files(files, size, sink),
            fleeting=True,
        )
        job, _ = await run_in_threadpool(take_in, services, owner, submission)
    try:
        look = partial(show, services, job.id)
        results = (await services.waiters.wait_done(job.id, look, wait_s)).results
    finally:
        await run_in_threadpool(store.erase, job.id)
        await run_in_threadpool(services.blobs.erase, job.id)
    if not results:
        raise NoAnswer(f"no worker scored the picture in {wait_s:g} s: try later")
    (result,) = results
    if result.scores is None:
        assert result.error is not None
        raise UploadRejected(f"{result.error.code}: {result.error.detail}")
    return result.scores
