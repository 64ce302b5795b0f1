"""The blob store on S3: one object for each payload."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote

from redis import Redis

from worker.jobs.s3 import Folder
from worker.jobs.storage.expiry import ExpiryIndex

# Some servers limit the text between two slashes to 255 bytes.
MAX_QUOTED_CHARS = 200
# Concurrent requests of a process, and objects read ahead for one reader.
CONCURRENCY = 8
READ_AHEAD = 4


class S3Blobs:
    """A `BlobStore` at `{prefix}/{job_id}/in/{quoted item id}`, with thumbnails beside `in`."""

    def __init__(self, folder: Folder, redis: Redis, concurrency: int = CONCURRENCY) -> None:
        self._folder = folder
        self._expiry = ExpiryIndex(redis)
        self._pool = ThreadPoolExecutor(concurrency, "blobs")

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        # First, so that the payloads expire even if this process dies now.
        self._expiry.put(job_id, ttl_s)
        keys = [blob_key(job_id, item_id) for item_id in payloads]
        for _ in self._pool.map(self._folder.put, keys, payloads.values()):
            pass

    def goes_with_job(self, _payloads: Mapping[str, bytes], /) -> bool:
        return False

    def keep(self, job_id: str, ttl_s: int) -> None:
        self._expiry.keep(job_id, ttl_s)

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
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

    def expect_thumbnails(self, job_id: str, ttl_s: int) -> None:
        self._expiry.put(job_id, ttl_s)

    def put_thumbnails(self, job_id: str, chunk_index: int, packed: bytes, /) -> bytes:
        self._folder.put(_thumbnails_key(job_id, chunk_index), packed)
        return b""

    def thumbnails(self, job_id: str, chunk_index: int) -> bytes | None:
        return self._folder.get(_thumbnails_key(job_id, chunk_index))

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        self._folder.delete([blob_key(job_id, item_id) for item_id in item_ids])

    def erase(self, job_id: str) -> None:
        """Delete all payloads of a job, now or, if S3 does not answer, later by a worker."""
        self._expiry.clear(job_id, self.remove)

    def remove(self, job_id: str) -> None:
        """Delete all objects of a job, its result files too. Raises StorageUnavailable."""
        self._folder.delete_under(f"{job_id}/")

    keeps_features = True

    def put_features(self, job_id: str, blocks: Mapping[str, bytes]) -> None:
        for name, block in blocks.items():
            self._folder.put(f"{job_id}/features/{name}", block)

    def get_features(self, job_id: str, names: Sequence[str]) -> Iterator[bytes | None]:
        yield from self._pool.map(self._folder.get, [f"{job_id}/features/{one}" for one in names])

    def room_bytes(self) -> None:
        """A bucket has no limit that it tells."""


def _thumbnails_key(job_id: str, chunk_index: int) -> str:
    return f"{job_id}/thumbnails/{chunk_index}"


def blob_key(job_id: str, item_id: str) -> str:
    """The key of a payload: the quoted item id, or its hash if the id is too long."""
    quoted = quote(item_id, safe="")
    if len(quoted) > MAX_QUOTED_CHARS:
        quoted = f"sha256-{hashlib.sha256(item_id.encode()).hexdigest()}"
    elif not item_id.strip("."):  # some servers take . and .. for folders
        quoted = item_id.replace(".", "%2E")
    return f"{job_id}/in/{quoted}"
