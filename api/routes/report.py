"""GET /jobs/{id}/report: the report of a job, one HTML file to send to others."""

from functools import partial
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from api.auth import READ_SLOT, CallerDep, own_job
from api.errors import problems
from api.middleware.security_headers import POLICY
from api.openapi.literals import REPORT
from api.reports import page
from api.reports.duplicates import duplicates_of, no_duplicates
from api.reports.job import job_report
from api.results.lineage import ancestry, newest_results
from api.results.thumbnails import newest_thumbnails
from api.services import ServicesDep

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/report",
    dependencies=[READ_SLOT],
    response_class=HTMLResponse,
    responses={
        200: {"description": "The report", "content": REPORT},
        304: {"description": "The report is that of the ETag in If-None-Match"},
        **problems(401, 404, 409, 422, 503),
    },
)
def read_report(
    job_id: str,
    services: ServicesDep,
    caller: CallerDep,
    merge: Annotated[
        Literal["parents"] | None,
        Query(
            description="`parents`: report the items of the first job, each with its newest "
            "result. For retries"
        ),
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Read a report of a job: one HTML file of at most 3 MB that loads nothing.

    It has the counts of pictures and labels, a histogram of the scores of each label, the labels
    that occur together, the pictures with the surest and the least sure scores, the failures by
    reason and host, the times, and the model; for a job that keeps features, also the largest
    groups of pictures that are nearly the same. While the job runs, it covers the results so
    far. A job of a million pictures takes less than a minute, because all its results are read.
    With `merge=parents`, the report of a retry covers the jobs that it retried, without groups of
    pictures. The report of a finished job has an `ETag`.
    """
    job = own_job(services, caller, job_id)
    model, options = services.store.model(job_id), services.store.options(job_id)
    line = ancestry(services.store, job) if merge else [job]
    compared, duplicates = True, no_duplicates
    if len(line) == 1:
        compared, duplicates = duplicates_of(services, job, model)
    headers = {"Cache-Control": "no-cache"}
    if job.status.done:
        made_by = version("piqueue-server")
        first = "" if len(line) == 1 else f"{line[0].id}-"
        tag = (
            f'W/"{first}{job.id}-{job.finished_ms}-{made_by}{"" if compared else "-not-compared"}"'
        )
        headers["ETag"] = tag
        if if_none_match is not None and tag in map(str.strip, if_none_match.split(",")):
            return Response(status_code=304, headers=headers)
    thumbnails_of = partial(newest_thumbnails, services.store, services.blobs, line)
    results = newest_results(services.store, line)
    blocks = job_report(line, model, options, results, thumbnails_of, duplicates)
    sent = services.download_threads.each(caller.owner, blocks)
    headers[POLICY] = f"{page.POLICY}; frame-ancestors 'none'"
    headers["Content-Disposition"] = f'inline; filename="{job_id}.html"'
    return StreamingResponse(sent, media_type="text/html", headers=headers)
