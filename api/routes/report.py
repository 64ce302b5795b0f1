"""GET /jobs/{id}/report: what came of a job, as one page to send to others."""

from functools import partial

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, StreamingResponse

from api.auth import READ_TURN, CallerDep, own_job
from api.errors import problems
from api.middleware.security_headers import POLICY
from api.openapi.literals import REPORT
from api.reports import page
from api.reports.job import job_report
from api.results.thumbnails import read_thumbnails
from api.services import ServicesDep

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/report",
    dependencies=[READ_TURN],
    response_class=HTMLResponse,
    responses={
        200: {"description": "The report", "content": REPORT},
        **problems(401, 404, 503),
    },
)
def read_report(job_id: str, services: ServicesDep, caller: CallerDep) -> StreamingResponse:
    """Read a report of a job: one HTML file of at most 3 MB that loads nothing.

    It has the counts of pictures and labels, a histogram of the scores of each label, the labels
    that occur together, the pictures with the surest and the least sure scores, the failures by
    reason and host, the times, and the model. For a job that runs, it is about the results so far.
    A job of a million pictures takes about half a minute, because all its results are read.
    """
    job = own_job(services, caller, job_id)
    model, options = services.store.model(job_id), services.store.options(job_id)
    thumbnails_of = partial(read_thumbnails, services.blobs, job)
    blocks = job_report(job, model, options, services.store.results(job), thumbnails_of)
    sent = services.download_threads.each(caller.owner, blocks)
    headers = {
        POLICY: f"{page.POLICY}; frame-ancestors 'none'",
        "Content-Disposition": f'inline; filename="{job_id}.html"',
        "Cache-Control": "no-cache",
    }
    return StreamingResponse(sent, media_type="text/html", headers=headers)
