"""Makes and stores the thumbnails of claimed chunks, for jobs that ask for them."""

from collections.abc import Sequence

import structlog

from model.images.result import DecodedImage
from model.images.thumbnail import thumbnail
from worker.jobs.errors import QueueFull, StorageUnavailable
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.store import NO_THUMBNAILS, StoredThumbnails
from worker.jobs.storage.blobs import BlobStore
from worker.jobs.storage.thumbnails import MOST_BYTES, pack_thumbnails

log = structlog.get_logger()


class Thumbnails:
    """The thumbnails of chunks that are scored together."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = claims
        # By chunk, then by the position in it.
        self._made: list[dict[int, bytes]] = [{} for _ in claims]

    def add(self, position: int, image: DecodedImage) -> None:
        """Make the thumbnail of an item, given by its position among those of all chunks."""
        for claim, made in zip(self._claims, self._made, strict=True):
            if position < len(claim.specs):
                if claim.first_index + position < claim.thumbnails:
                    made[position] = thumbnail(image, MOST_BYTES)
                return
            position -= len(claim.specs)

    def store(self, blobs: BlobStore) -> list[StoredThumbnails]:
        """Store them, unless the commit is to do it; returns those of each chunk.

        A chunk whose thumbnails cannot be stored goes on without.
        """
        return [
            self._store(blobs, claim, pack_thumbnails(made)) if made else NO_THUMBNAILS
            for claim, made in zip(self._claims, self._made, strict=True)
        ]

    def _store(self, blobs: BlobStore, claim: Claim, packed: bytes) -> StoredThumbnails:
        try:
            left = blobs.put_thumbnails(claim.job_id, claim.chunk_index, packed)
        except (QueueFull, StorageUnavailable) as error:
            log.warning(
                "thumbnails_not_stored",
                job_id=claim.job_id,
                chunk_index=claim.chunk_index,
                reason=str(error),
            )
            left = None
        return NO_THUMBNAILS if left is None else StoredThumbnails(len(packed), left)
