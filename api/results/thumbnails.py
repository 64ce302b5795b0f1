"""Reads the thumbnails of items."""

from collections.abc import Iterable
from itertools import groupby

from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore
from worker.jobs.storage.thumbnails import unpack_thumbnail


def read_thumbnails(blobs: BlobStore, job: Job, indexes: Iterable[int]) -> dict[int, bytes]:
    """Read the thumbnails of items by index, without those that there are not."""
    found = {}
    kept = sorted({index for index in indexes if index < job.thumbnails})
    for chunk_index, of_chunk in groupby(kept, key=lambda index: index // job.chunk_items):
        packed = blobs.thumbnails(job.id, chunk_index)
        for index in of_chunk:
            if packed and (one := unpack_thumbnail(packed, index % job.chunk_items)):
                found[index] = one
    return found
