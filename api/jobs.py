"""The routes of jobs: submit, read, cancel, delete."""

import base64
import binascii
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.schemas import ItemIn, JobIn, JobOptions, JobOut, Problem, ResultOut, ResultsPage
from api.services import Services, ServicesDep
from api.submission import submit
from worker.jobs.errors import CursorInvalid
from worker.jobs.record import Job

PAGE_ITEMS = 100
MAX_PAGE_ITEMS = 1000
POLL_S = 1

router = APIRouter(tags=["jobs"])

_PROBLEM: dict[str, Any] = {"model": Problem}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
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
        },
    }
}
# The bodies that `submit` reads by content type, for the OpenAPI document.
BODY_SCHEMAS = (JobIn, JobOptions, ItemIn)


@router.post(
    "/jobs",
    status_code=202,
    response_model_exclude_none=False,
    openapi_extra=_BODY,
    responses=dict.fromkeys((400, 413, 415, 422, 503), _PROBLEM),
)
async def submit_job(request: Request, response: Response, services: ServicesDep) -> JobOut:
    """Submit pictures, as URLs or files, to be scored."""
    job = await submit(request, services)
    response.headers["Location"] = f"/jobs/{job.id}"
    return _show(job, response)


@router.get("/jobs/{job_id}", responses={404: _PROBLEM, 503: _PROBLEM})
def read_job(
    job_id: str,
    response: Response,
    services: ServicesDep,
    results: Annotated[bool, Query(description="With the first results once done")] = True,
) -> JobOut:
    """Read where a job stands; once it is done, with its first 100 results."""
    job = services.store.job(job_id)
    page = _page(services, job, 0, PAGE_ITEMS).items if results and job.status.done else None
    return _show(job, response, page)


@router.get(
    "/jobs/{job_id}/results",
    response_model_exclude_unset=True,
    responses={400: _PROBLEM, 404: _PROBLEM, 503: _PROBLEM},
)
def read_results(
    job_id: str,
    services: ServicesDep,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS)] = PAGE_ITEMS,
) -> ResultsPage:
    """Read the finished items, a page at a time; works while the job runs and after."""
    return _page(services, services.store.job(job_id), _start_index(cursor), limit)


@router.post("/jobs/{job_id}/cancel", status_code=202, responses={404: _PROBLEM, 503: _PROBLEM})
def cancel_job(job_id: str, response: Response, services: ServicesDep) -> JobOut:
    """Stop a job; what is being scored right now still ends, and results stay."""
    services.store.cancel(job_id)
    return _show(services.store.job(job_id), response)


@router.delete("/jobs/{job_id}", status_code=204, responses={404: _PROBLEM, 503: _PROBLEM})
def delete_job(job_id: str, services: ServicesDep) -> None:
    """Stop a job and erase it with its pictures and results."""
    services.store.erase(job_id)
    services.blobs.erase(job_id)


def first_result(services: Services, job: Job) -> ResultOut | None:
    """Give the result of the first item, if it has one."""
    return next(iter(_page(services, job, 0, 1).items), None)


def _show(job: Job, response: Response, results: list[ResultOut] | None = None) -> JobOut:
    if not job.status.done:
        response.headers["Retry-After"] = str(POLL_S)
    return JobOut.of(job, results)


def _page(services: Services, job: Job, start_index: int, limit: int) -> ResultsPage:
    model = services.store.model(job.id)
    stored = list(islice(services.store.results(job, start_index), limit + 1))
    items = [ResultOut.of(result, model) for result in stored[:limit]]
    if len(stored) <= limit:
        return ResultsPage(items=items)
    return ResultsPage(items=items, next_cursor=_cursor(stored[limit].index))


def _cursor(index: int) -> str:
    return base64.urlsafe_b64encode(f"index:{index}".encode()).decode()


def _start_index(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        name, _, index = base64.urlsafe_b64decode(cursor).decode().partition(":")
        if name == "index" and index.isdecimal():
            return int(index)
    except (binascii.Error, ValueError):
        pass
    raise CursorInvalid("the cursor is not one of ours: use next_cursor of the page before")
