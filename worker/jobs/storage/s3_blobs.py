"""The blob store on S3: an object a payload, erased when its job expires."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote

from redis import Redis

from worker.jobs.s3 import Folder
from worker.jobs.storage.expiry_index import ExpiryIndex

# What some servers allow between two slashes is 255 bytes.
MAX_QUOTED_CHARS = 200
# Objects a process writes and reads at once, and those held for one reader.
ABREAST = 8
READ_AHEAD = 4


class S3Blobs:
    """Payloads at `{prefix}/{job_id}/in/{quoted item id}`."""

    def __init__(self, folder: Folder, redis: Redis, abreast: int = ABREAST) -> None:
        self._folder = folder
        self._shelf = ExpiryIndex(redis)
        self._pool = ThreadPoolExecutor(abreast, "blobs")

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        """Keep payloads, and the others of their job, for at most `ttl_s` from now."""
        # First, so that a payload whose writer dies now is erased all the same.
        self._shelf.put(job_id, ttl_s)
        keys = [blob_key(job_id, item_id) for item_id in payloads]
        for _ in self._pool.map(self._folder.put, keys, payloads.values()):
            pass

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Keep the payloads that a job has for `ttl_s` from now."""
        self._shelf.keep(job_id, ttl_s)

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        """Read payloads in this order; None for one that is not there."""
        reads: deque[Future[bytes | None]] = deque()
        try:
            for item_id in item_ids:
                reads.append(self._pool.submit(self._folder.get, blob_key(job_id, item_id)))
                if len(reads) == READ_AHEAD:
                    yield reads.popleft().result()
            while reads:
                yield reads.popleft().result()
        finally:
            for read in reads:
                read.cancel()

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        """Forget payloads."""
        self._folder.delete([blob_key(job_id, item_id) for item_id in item_ids])

    def erase(self, job_id: str) -> None:
        """Forget every payload of a job, or have a worker do it as soon as S3 answers."""
        self._shelf.clear(job_id, self._folder)


def blob_key(job_id: str, item_id: str) -> str:
    """Name the object of a payload; an id too long to be spelt out is named by its hash."""
    quoted = quote(item_id, safe="")
    if len(quoted) > MAX_QUOTED_CHARS:
        quoted = f"sha256-{hashlib.sha256(item_id.encode()).hexdigest()}"
    elif not item_id.strip("."):  # . and .. mean folders to some servers
        quoted = item_id.replace(".", "%2E")
    return f"{job_id}/in/{quoted}"
