"""GET /jobs/{id}/similar and /jobs/{id}/duplicates: the pictures of a job that are alike."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import READ_SLOT, CallerDep, own_job
from api.errors import problems
from api.results import cursors
from api.results.cursors import CursorQuery
from api.results.similar import similar_pictures
from api.schemas import DuplicatesPage, GroupMemberOut, GroupOut, SimilarOut
from api.services import Services, ServicesDep
from worker.jobs.errors import ItemNotFound, NotCompared
from worker.jobs.ledger.api_keys import ApiKey
from worker.jobs.record import Job
from worker.jobs.results import SourceOut
from worker.jobs.storage.similar import MOST_NEIGHBOURS, SimilarPictures, Summary

MAX_AGE_S = 3600
# Groups of a page, of up to 100 pictures each.
MAX_GROUPS = 100
RETRY_S = 1

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/similar",
    dependencies=[READ_SLOT],
    responses=problems(401, 404, 409, 422, 503),
)
def read_similar(
    job_id: str,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    item: Annotated[int, Query(ge=0, description="The index of a picture, from 0")],
    limit: Annotated[int, Query(ge=1, le=MOST_NEIGHBOURS)] = MOST_NEIGHBOURS,
) -> list[SimilarOut]:
    """Read the pictures of a finished job that are most similar to one of them, the nearest first.

    The job must keep features (`keep_features`). The first request of a job lets a worker compare
    all its pictures. Until that is done, the response is 503 with `Retry-After`.
    """
    job, similar, _ = _compared(services, caller, job_id, response)
    if item >= job.counts.total:
        raise ItemNotFound(
            f"item: {job.id} has no item {item}: give an index up to {job.counts.total - 1}"
        )
    found = similar.of_item(item)
    if found is None:
        raise ItemNotFound(
            f"item: item {item} of {job.id} has no features, because it failed or was not scored: "
            "read the results of the job, which say why"
        )
    found = found[:limit]
    specs = services.store.specs(job, [index for index, _ in found])
    return [
        SimilarOut(
            index=index,
            id=specs[index].id,
            source=SourceOut.of(specs[index]),
            similarity=round(similarity, 4),
        )
        for index, similarity in found
    ]


@router.get(
    "/jobs/{job_id}/duplicates",
    dependencies=[READ_SLOT],
    responses=problems(400, 401, 404, 409, 422, 503),
)
def read_duplicates(
    job_id: str,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    cursor: CursorQuery = None,
    limit: Annotated[int, Query(ge=1, le=MAX_GROUPS)] = 20,
) -> DuplicatesPage:
    """Read the groups of pictures of a finished job that are nearly the same.

    These are the same file, or were encoded again, resized or cropped a little. As for `similar`,
    the job must keep features, and the first request lets a worker compare its pictures.
    """
    start = cursors.index(cursor)
    job, similar, summary = _compared(services, caller, job_id, response)
    groups = [group for group, _ in zip(similar.groups(start), range(limit), strict=False)]
    specs = services.store.specs(job, [index for group in groups for index in group.indexes])
    more = start + limit < summary.groups
    return DuplicatesPage(
        compared=summary.compared,
        group_count=summary.groups,
        duplicate_count=summary.duplicates,
        groups=[
            GroupOut(
                count=group.count,
                items=[
                    GroupMemberOut(
                        index=index, id=specs[index].id, source=SourceOut.of(specs[index])
                    )
                    for index in group.indexes
                ],
            )
            for group in groups
        ],
        next_cursor=cursors.to_index(start + limit) if more else None,
    )


def _compared(
    services: Services, caller: ApiKey, job_id: str, response: Response
) -> tuple[Job, SimilarPictures, Summary]:
    """A job whose pictures were compared; else lets a worker do it. Raises NotCompared."""
    job = own_job(services, caller, job_id)
    similar = similar_pictures(services.blobs, job, services.store.model(job_id))
    summary = similar.summary()
    if summary is None:
        services.comparisons.request(job_id)
        raise NotCompared(
            f"a worker compares the pictures of {job_id}: try again in {RETRY_S} s", RETRY_S
        )
    # It never changes. Another key in the same browser may not see it.
    response.headers["Cache-Control"] = f"private, max-age={MAX_AGE_S}"
    response.headers["Vary"] = "Authorization"
    return job, similar, summary
