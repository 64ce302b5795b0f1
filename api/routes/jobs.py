"""The routes of jobs: submit, read, list, cancel, delete."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import CallerDep, OwnerDep, OwnJobDep, own_job
from api.errors import problems
from api.intake.drafts import add_to_draft, in_use, open_draft, submit_draft
from api.intake.dry_run import dry_run
from api.intake.received import NoBodyDep
from api.intake.submission import read_submission, submit
from api.job_view import job_view, retry_after, wait_for_job
from api.openapi.literals import JOBS_BODY
from api.results import cursors
from api.results.cursors import PAGE_ITEMS, CursorQuery, LimitQuery
from api.schemas import DraftItemOut, DraftItemsPage, DraftOut, DryRunOut, JobOut, JobsPage
from api.services import Services, ServicesDep
from api.urls import own_path
from worker.jobs.errors import JobNotDraft
from worker.jobs.ledger.reader import LIST_READ
from worker.jobs.record import Job, JobStatus

MAX_WAIT_S = 60
# Jobs that one page of a search reads at most.
LISTED_SCAN_JOBS = 2000

# A preference as RFC 7240 writes it: its name in any case, its value also in quotes.
WAIT = re.compile(
    r'(?:^|,)\s*wait\s*=\s*(?P<quote>"?)(?P<seconds>[0-9]+)(?P=quote)\s*(?=[,;]|$)', re.IGNORECASE
)

router = APIRouter(tags=["jobs"])

_WaitHeader = Annotated[
    str | None,
    Header(
        description="`wait=20`: respond when the job is done, or after 20 seconds; a longer time "
        f"than {MAX_WAIT_S} seconds counts as {MAX_WAIT_S}"
    ),
]


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobOut | DryRunOut,
    openapi_extra=JOBS_BODY,
    responses={
        200: {
            "model": JobOut | DryRunOut,
            "description": "Done within the time of `Prefer: wait`, or a dry run",
        },
        201: {"model": JobOut, "description": "A draft, to which items can be added"},
        **problems(400, 401, 408, 409, 413, 415, 422, 429, 503),
    },
)
async def submit_job(
    request: Request,
    response: Response,
    services: ServicesDep,
    owner: OwnerDep,
    idempotency_key: Annotated[str | None, Header()] = None,
    prefer: _WaitHeader = None,
) -> Any:
    """Submit pictures as URLs or files, or create a draft to which items are added later."""
    async with read_submission(request, services, owner) as submission:
        if submission.options.dry_run:
            response.status_code = 200
            return await dry_run(services, owner, submission)
        if submission.draft:
            job = await run_in_threadpool(open_draft, services, owner, submission.options)
            response.status_code = 201
            response.headers["Location"] = own_path(f"/jobs/{job.id}")
            return JobOut.of(job)
        job_id, replayed = await submission.threads.run(
            owner,
            partial(submit, awaited=bool(_preferred_wait_s(prefer))),
            services,
            owner,
            submission,
            idempotency_key,
        )
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = own_path(f"/jobs/{job_id}")
    return await _answer_when_done(services, job_id, response, prefer)


@router.post(
    "/jobs/{job_id}/items",
    openapi_extra=JOBS_BODY,
    responses=problems(400, 401, 404, 408, 409, 413, 415, 422, 429, 503),
)
async def add_items(
    draft: OwnJobDep,
    request: Request,
    services: ServicesDep,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> DraftOut:
    """Add items to a draft.

    An item that the draft has already is skipped; another item of the same id is refused. Items
    without an id get the next numbers; a request that may be sent again needs ids, or the same
    `Idempotency-Key`.
    """
    async with (
        in_use(services, draft),
        read_submission(request, services, draft.owner) as submission,
    ):
        job, change = await submission.threads.run(
            draft.owner, add_to_draft, services, draft, submission, idempotency_key
        )
        return DraftOut.of_change(job, change)


@router.get("/jobs/{job_id}/items", responses=problems(400, 401, 404, 409, 503))
def list_draft_items(
    job: OwnJobDep,
    services: ServicesDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = PAGE_ITEMS,
) -> DraftItemsPage:
    """List the items of a draft, so that an interrupted upload can send only the rest."""
    if job.status is not JobStatus.DRAFT:
        raise JobNotDraft(f"{job.id} is not a draft: read its results instead")
    services.store.touch_draft(job.id)
    start = cursors.index(cursor)
    specs = next(services.store.draft_items(job.id, limit + 1, start), [])
    return DraftItemsPage(
        items=[DraftItemOut(id=spec.id) for spec in specs[:limit]],
        next_cursor=cursors.to_index(start + limit) if len(specs) > limit else None,
    )


@router.post(
    "/jobs/{job_id}/submit",
    status_code=202,
    responses={
        200: {"model": JobOut, "description": "Done within the time of `Prefer: wait`"},
        **problems(401, 404, 408, 409, 413, 415, 422, 429, 503),
    },
)
async def submit_drafted_job(
    draft: OwnJobDep,
    _no_body: NoBodyDep,
    response: Response,
    services: ServicesDep,
    prefer: _WaitHeader = None,
) -> JobOut:
    """Submit a draft, with the options that it was opened with."""
    async with in_use(services, draft):
        job_id = await services.long_threads.run(draft.owner, submit_draft, services, draft)
    return await _answer_when_done(services, job_id, response, prefer)


@router.get("/jobs", responses=problems(400, 401, 503))
async def list_jobs(
    services: ServicesDep,
    owner: OwnerDep,
    status: JobStatus | None = None,
    search: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="Only jobs whose name or id contains this text, regardless of case. A page "
            "may then have fewer jobs than `limit`; the last page is the one without `next_cursor`",
        ),
    ] = None,
    cursor: CursorQuery = None,
    limit: LimitQuery = PAGE_ITEMS,
) -> JobsPage:
    """List your jobs, newest first."""
    before = cursors.job_id(cursor)

    def read() -> JobsPage:
        step = limit + 1 if search is None else LIST_READ
        return jobs_page(services.store.jobs(owner, before, status, step), limit, search)

    return await services.read_threads.run(owner, read)


@router.get(
    "/jobs/{job_id}",
    responses={
        304: {"description": "The job is unchanged since the ETag in If-None-Match"},
        **problems(401, 404, 503),
    },
    response_model=JobOut,
)
async def read_job(
    job_id: str,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    results: Annotated[bool, Query(description="Include the first results once done")] = True,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT_S, description="Respond when done, or after this many seconds"),
    ] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """Read a job; once it is done, with its first 100 results."""

    def read() -> JobOut:
        job = own_job(services, caller, job_id)
        return JobOut.of(job, place=services.load.queue_position(job))

    view = await run_in_threadpool(read)
    if wait and not view.done:
        view = await wait_for_job(services, job_id, wait)
    tag = _etag(view, results)
    headers = {"ETag": tag, **retry_after(view)}
    if if_none_match is not None and tag in map(str.strip, if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    if view.done and results and view.results is None:
        return await run_in_threadpool(job_view, services, job_id)
    if not results:
        view.results = None
    return view


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    responses=problems(401, 404, 408, 413, 415, 422, 503),
)
def cancel_job(
    job: OwnJobDep, _no_body: NoBodyDep, response: Response, services: ServicesDep
) -> JobOut:
    """Cancel a job; items that are being scored are finished, and results are kept."""
    services.store.cancel(job.id)
    view = job_view(services, job.id)
    response.headers.update(retry_after(view))
    return view


@router.delete(
    "/jobs/{job_id}", status_code=204, responses=problems(401, 404, 408, 413, 415, 422, 503)
)
def delete_job(job: OwnJobDep, _no_body: NoBodyDep, services: ServicesDep) -> None:
    """Cancel a job and erase it with its pictures and results."""
    services.store.erase(job.id)
    services.blobs.erase(job.id)
    if services.parts is not None:
        services.parts.erase(job.id)


def jobs_page(found: Iterator[Job], limit: int, search: str | None) -> JobsPage:
    """Return the first `limit` jobs with this text in their name or id.

    The page ends after LISTED_SCAN_JOBS jobs are read, however few of them match.
    """
    page: list[JobOut] = []
    last: Job | None = None
    for scanned, job in enumerate(found):
        if last and (len(page) == limit or scanned == LISTED_SCAN_JOBS):
            return JobsPage(jobs=page, next_cursor=cursors.to_job(last.id))
        if search is None or search.lower() in f"{job.name or ''}\n{job.id}".lower():
            page.append(JobOut.of(job))
        last = job
    return JobsPage(jobs=page, next_cursor=None)


async def _answer_when_done(
    services: Services, job_id: str, response: Response, prefer: str | None
) -> JobOut:
    """Wait for the job as long as the client prefers to, and return it."""
    wait_s = _preferred_wait_s(prefer)
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    view = await wait_for_job(services, job_id, wait_s or 0)
    if wait_s is not None and view.done:
        response.status_code = 200
    response.headers.update(retry_after(view))
    return view


def _preferred_wait_s(prefer: str | None) -> int | None:
    """Read how long a client prefers to wait, at most MAX_WAIT_S; None without a preference."""
    preference = WAIT.search(prefer or "")
    # Not by int, which takes no more than 4,300 digits.
    return int(min(float(preference["seconds"]), MAX_WAIT_S)) if preference else None


def _etag(job: JobOut, results: bool) -> str:
    """Return the tag of a job's state; a new rate or ETA alone does not change it."""
    counts = job.counts
    return (
        f'W/"{job.status}-{counts.total}-{counts.running}-{counts.succeeded}-{counts.failed}'
        f'-{int(results)}"'
    )
