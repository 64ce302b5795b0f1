"""Reads the thumbnails of items."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import structlog

from worker.jobs.ledger.reader import JobReader
from worker.jobs.record import Job
from worker.jobs.storage.blobs import BlobStore
from worker.jobs.storage.thumbnails import unpack_thumbnail

log = structlog.get_logger()


def newest_thumbnails(
    store: JobReader, blobs: BlobStore, line: Sequence[Job], indexes: Iterable[int]
) -> dict[int, bytes]:
    """Read the thumbnails of items by their index in the first job.

    `line` comes from `ancestry`. A picture that failed has none; the job that scored it has one.
    """
    first, *retries = line
    indexes = set(indexes)
    found = read_thumbnails(blobs, first, indexes)
    missing = indexes - found.keys()
    if missing and any(retry.thumbnails for retry in retries):
        retried = store.retried(retries[0], missing)
        later = newest_thumbnails(store, blobs, retries, retried.values())
        found |= {index: later[at] for index, at in retried.items() if at in later}
    return found


def read_thumbnails(blobs: BlobStore, job: Job, indexes: Iterable[int]) -> dict[int, bytes]:
    """Read the thumbnails of items by index, without those that there are not.

    Those that are damaged count as missing, and are logged.
    """
    found = {}
    kept = sorted({index for index in indexes if index < job.thumbnails})
    for chunk_index, of_chunk in groupby(kept, key=lambda index: index // job.chunk_items):
        packed = blobs.thumbnails(job.id, chunk_index)
        if not packed:
            continue
        try:
            for index in of_chunk:
                if one := unpack_thumbnail(packed, index % job.chunk_items):
                    found[index] = one
        except ValueError as error:
            log.error(
                "thumbnails_damaged", job_id=job.id, chunk_index=chunk_index, reason=str(error)
            )
    return found
