"""The routes of jobs: submit, read, cancel, delete."""

import re
from functools import partial
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import OwnerDep
from api.errors import problems
from api.intake.dry_run import dry_run
from api.intake.submission import add_to_draft, open_draft, reading, submit_draft, take_in
from api.job_view import retry_after, show
from api.ownership import own_job
from api.results import cursors
from api.results.cursors import PAGE_ITEMS, CursorQuery, LimitQuery
from api.schemas import (
    DraftItemOut,
    DraftItemsPage,
    DryRunOut,
    JobOut,
    JobsPage,
)
from api.services import Services, ServicesDep
from worker.jobs.errors import JobNotDraft
from worker.jobs.record import Job, JobStatus

MAX_WAIT_S = 60

router = APIRouter(tags=["jobs"])

_ITEMS_BODY: dict[str, Any] = {
    "application/json": {"schema": {"$ref": "#/components/schemas/JobIn"}},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["files"],
            "properties": {
                "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                "options": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/JobOptions"},
                },
            },
        }
    },
    "text/csv": {"schema": {"type": "string"}},
    "application/x-ndjson": {"schema": {"type": "string"}},
}
_BODY = {"requestBody": {"required": True, "content": _ITEMS_BODY}}


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobOut | DryRunOut,
    openapi_extra=_BODY,
    responses={
        200: {
            "model": JobOut | DryRunOut,
            "description": "Done within the time of `Prefer: wait`, or a dry run",
        },
        201: {"model": JobOut, "description": "A draft, which takes items"},
        **problems(400, 401, 409, 413, 415, 422, 429, 503),
    },
)
async def submit_job(
    request: Request,
    response: Response,
    services: ServicesDep,
    owner: OwnerDep,
    idempotency_key: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header(description="`wait=20`: answer when done")] = None,
) -> Any:
    """Submit pictures, as URLs or files, to be scored; or begin a draft of such a job."""
    async with reading(request, services) as submission:
        if submission.options.dry_run:
            response.status_code = 200
            return await dry_run(services, owner, submission)
        if submission.draft:
            job = await run_in_threadpool(open_draft, services, owner, submission.options)
            response.status_code = 201
        else:
            job, replayed = await run_in_threadpool(
                take_in, services, owner, submission, idempotency_key
            )
            if replayed:
                response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/jobs/{job.id}"
    return await _answer_when_done(services, job, response, prefer)


@router.post(
    "/jobs/{job_id}/items",
    openapi_extra=_BODY,
    responses=problems(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def add_items(
    job_id: str, request: Request, services: ServicesDep, owner: OwnerDep
) -> JobOut:
    """Add items to a draft; an item whose id it has already is passed over."""
    draft = await run_in_threadpool(own_job, services, owner, job_id)
    async with reading(request, services) as submission:
        job = await run_in_threadpool(add_to_draft, services, draft, submission.feed)
    return JobOut.of(job)


@router.get("/jobs/{job_id}/items", responses=problems(400, 401, 404, 409, 503))
def list_draft_items(
    job_id: str,
    services: ServicesDep,
    owner: OwnerDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = PAGE_ITEMS,
) -> DraftItemsPage:
    """List the items a draft has, so that an upload that broke off sends only the rest."""
    if own_job(services, owner, job_id).status is not JobStatus.DRAFT:
        raise JobNotDraft(f"{job_id} is already submitted: read its results")
    start = 0 if cursor is None else cursors.index(cursor)
    specs = next(services.store.draft_items(job_id, limit + 1, start), [])
    return DraftItemsPage(
        items=[DraftItemOut(id=spec.id) for spec in specs[:limit]],
        next_cursor=cursors.to_index(start + limit) if len(specs) > limit else None,
    )


@router.post(
    "/jobs/{job_id}/submit",
    status_code=202,
    responses={
        200: {"model": JobOut, "description": "Done within the time of `Prefer: wait`"},
        **problems(401, 404, 409, 413, 422, 429, 503),
    },
)
async def submit_drafted_job(
    job_id: str,
    response: Response,
    services: ServicesDep,
    owner: OwnerDep,
    prefer: Annotated[str | None, Header(description="`wait=20`: answer when done")] = None,
) -> JobOut:
    """Submit a draft to be scored."""
    await run_in_threadpool(own_job, services, owner, job_id)
    job = await run_in_threadpool(submit_draft, services, owner, job_id)
    return await _answer_when_done(services, job, response, prefer)


@router.get("/jobs", responses=problems(400, 401, 503))
def list_jobs(
    services: ServicesDep,
    owner: OwnerDep,
    status: JobStatus | None = None,
    cursor: CursorQuery = None,
    limit: LimitQuery = PAGE_ITEMS,
) -> JobsPage:
    """List your jobs, newest first."""
    before = None if cursor is None else cursors.job_id(cursor)
    jobs = (
        job for job in services.store.jobs(owner, before) if status is None or job.status == status
    )
    page = list(islice(jobs, limit + 1))
    return JobsPage(
        jobs=[JobOut.of(job) for job in page[:limit]],
        next_cursor=cursors.to_job(page[limit - 1].id) if len(page) > limit else None,
    )


@router.get(
    "/jobs/{job_id}",
    responses={
        304: {"description": "As the ETag says"},
        **problems(401, 404, 503),
    },
    response_model=JobOut,
)
async def read_job(
    job_id: str,
    response: Response,
    services: ServicesDep,
    owner: OwnerDep,
    results: Annotated[bool, Query(description="With the first results once done")] = True,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_S, description="Answer when done, or after so many seconds")
    ] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """Read where a job stands; once it is done, with its first 100 results."""
    job = await run_in_threadpool(own_job, services, owner, job_id)
    shown = JobOut.of(job)
    look = partial(show, services, job_id)
    if wait and not shown.done:
        shown = await services.waiters.wait_done(job_id, look, wait)
    tag = _etag(shown, results)
    headers = {"ETag": tag, **retry_after(shown)}
    if if_none_match is not None and tag in map(str.strip, if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    if shown.done and results and shown.results is None:
        return await run_in_threadpool(look)
    if not results:
        shown.results = None
    return shown


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    responses=problems(401, 404, 503),
)
def cancel_job(job_id: str, response: Response, services: ServicesDep, owner: OwnerDep) -> JobOut:
    """Stop a job; what is being scored right now still ends, and results stay."""
    own_job(services, owner, job_id)
    services.store.cancel(job_id)
    shown = show(services, job_id)
    response.headers.update(retry_after(shown))
    return shown


@router.delete("/jobs/{job_id}", status_code=204, responses=problems(401, 404, 503))
def delete_job(job_id: str, services: ServicesDep, owner: OwnerDep) -> None:
    """Stop a job and erase it with its pictures and results."""
    own_job(services, owner, job_id)
    services.store.erase(job_id)
    services.blobs.erase(job_id)
    if services.parts is not None:
        services.parts.erase(job_id)


async def _answer_when_done(
    services: Services, job: Job, response: Response, prefer: str | None
) -> JobOut:
    """Wait for the job as long as the client prefers to, then show it."""
    shown, wait_s = JobOut.of(job), 0
    wish = re.search(r"\bwait=([0-9]{1,4})\b", prefer or "")
    if wish and job.status is not JobStatus.DRAFT:
        wait_s = min(int(wish[1]), MAX_WAIT_S)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    if wait_s or shown.done:
        look = partial(show, services, job.id)
        shown = await services.waiters.wait_done(job.id, look, wait_s)
    if wish and shown.done:
        response.status_code = 200
    response.headers.update(retry_after(shown))
    return shown


def _etag(job: JobOut, results: bool) -> str:
    """Name a state of a job as a client sees it; the rate and ETA alone make no new one."""
    counts = job.counts
    return (
        f'W/"{job.status}-{counts.total}-{counts.running}-{counts.succeeded}-{counts.failed}'
        f'-{int(results)}"'
    )
