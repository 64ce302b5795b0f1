"""GET /jobs/{id}/results/parts: the files with a job's results on S3, as presigned URLs."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.auth import OwnJobDep
from api.errors import problems
from api.job_view import require_done
from api.results import cursors
from api.results.cursors import PAGE_ITEMS, CursorQuery, LimitQuery
from api.services import ServicesDep
from worker.jobs.errors import PartsNotFound, PartsNotReady

URL_TTL_S = 3600

router = APIRouter(tags=["jobs"])


class PartOut(BaseModel):
    """One file of results, in the format of `results?format=jsonl`."""

    key: str
    url: str
    items: int


class PartsPage(BaseModel):
    """The files of a job's results, in the order of its items."""

    manifest_url: str = Field(description="A list of all files, with their item ranges and SHA-256")
    parts: list[PartOut]
    next_cursor: str | None = Field(description="Null on the last page")


@router.get("/jobs/{job_id}/results/parts", responses=problems(400, 401, 404, 409, 503))
def list_parts(
    job: OwnJobDep,
    response: Response,
    services: ServicesDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = PAGE_ITEMS,
) -> PartsPage:
    """List the files of a finished job's results on S3; the URLs need no key and last an hour.

    A service that keeps results in Redis only has no such files.
    """
    files = services.parts
    if files is None or not job.parts:
        raise PartsNotFound(
            f"the results of {job.id} are not on S3, because PIQUEUE_STORAGE_URL named no bucket "
            "when the job was submitted: read /results instead"
        )
    require_done(job, "list its files")
    start = cursors.index(cursor)
    manifest = files.manifest(job.id)
    if manifest is None:
        raise PartsNotReady(f"the manifest of {job.id} is being written: try again in a moment")
    response.headers["Cache-Control"] = "no-store"
    page = manifest.parts[start : start + limit]
    more = len(manifest.parts) > start + limit
    return PartsPage(
        manifest_url=files.url(job.id, URL_TTL_S),
        parts=[
            PartOut(key=part.key, url=files.url(job.id, URL_TTL_S, part.key), items=part.items)
            for part in page
        ],
        next_cursor=cursors.to_index(start + limit) if more else None,
    )
