"""GET /jobs/{id}/items/{index}/thumbnail: the small version of a picture."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.auth import OwnJobDep
from api.errors import problems
from api.openapi.literals import THUMBNAIL
from api.results.thumbnails import read_thumbnails
from api.services import ServicesDep
from worker.jobs.errors import ThumbnailNotFound
from worker.jobs.storage.thumbnails import MEDIA_TYPE

MAX_AGE_S = 86400

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/items/{index}/thumbnail",
    response_class=Response,
    responses={
        200: {"description": "A WebP of at most 4,096 bytes", "content": THUMBNAIL},
        **problems(401, 404, 422, 503),
    },
)
def read_thumbnail(
    job: OwnJobDep,
    index: Annotated[int, Path(ge=0, description="The index of the item, from 0")],
    services: ServicesDep,
) -> Response:
    """Read the thumbnail of a picture: a WebP, upright, with at most 160 pixels on its longer side.

    A picture has one once it is scored, if its job was submitted with `thumbnails` and it is one of
    the first items, as many as the job says in `thumbnails`. It is kept as long as the job.
    """
    found = read_thumbnails(services.blobs, job, [index]).get(index)
    if found is None:
        raise ThumbnailNotFound(
            f"item {index} of {job.id} has no thumbnail: submit its job with the option thumbnails "
            f"and read those of its first items, here {job.thumbnails}, once they are scored"
        )
    # It never changes. Another key in the same browser may not see it.
    headers = {
        "Cache-Control": f"private, max-age={MAX_AGE_S}, immutable",
        "Vary": "Authorization",
    }
    return Response(found, media_type=MEDIA_TYPE, headers=headers)
