"""The results of a finished job as files on S3, by URLs that need no credentials."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors import problems
from api.ownership import OwnJobDep
from api.results import cursors
from api.results.cursors import PAGE_ITEMS, CursorQuery, LimitQuery
from api.services import ServicesDep
from worker.jobs.errors import JobNotDone, PartsNotFound, PartsNotReady

URL_TTL_S = 3600

router = APIRouter(tags=["jobs"])

_URL = "https://s3.example.com/scores/job_01M81QHC2PSQY738DHJF0EYRK9/{}?X-Amz-Expires=3600&…"
_PARTS: JsonDict = {
    "manifest_url": _URL.format("manifest.json"),
    "parts": [
        {"key": "part-00000.jsonl", "url": _URL.format("part-00000.jsonl"), "items": 32},
        {"key": "part-00001.jsonl", "url": _URL.format("part-00001.jsonl"), "items": 20},
    ],
    "next_cursor": None,
}


class PartOut(BaseModel):
    """One file of results: JSONL, an item a line, as `results?format=jsonl` gives it."""

    key: str
    url: str
    items: int


class PartsPage(BaseModel):
    """The files of a job's results, in the order of its items."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PARTS]})

    manifest_url: str = Field(description="All parts with their item ranges and SHA-256")
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
    """List the files of a finished job's results on S3; whoever has a URL may read it for an hour.

    There are none where the service keeps results in Redis alone.
    """
    files = services.parts
    if files is None or not job.parts:
        raise PartsNotFound(
            f"the results of {job.id} are not on S3: they are written there where "
            "PIQUEUE_STORAGE_URL named a bucket when the job was submitted"
        )
    if not job.status.done:
        raise JobNotDone(f"{job.id} is {job.status}: its files are complete once it is done")
    start = 0 if cursor is None else cursors.index(cursor)
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
