"""The blob store on S3: an object a payload, erased when its job expires."""

import hashlib
from collections.abc import Sequence
from urllib.parse import quote

from redis import Redis

from worker.jobs.s3 import Folder
from worker.jobs.shelf import Shelf

# What some servers allow between two slashes is 255 bytes.
MAX_QUOTED_CHARS = 200


class S3Blobs:
    """Payloads at `{prefix}/{job_id}/in/{quoted item id}`."""

    def __init__(self, folder: Folder, redis: Redis) -> None:
        self._folder = folder
        self._shelf = Shelf(redis)

    def put(self, job_id: str, item_id: str, payload: bytes, ttl_s: int) -> None:
        """Keep a payload, and the others of its job, for at most `ttl_s` from now."""
        # First, so that a payload whose writer dies now is erased all the same.
        self._shelf.put(job_id, ttl_s)
        self._folder.put(blob_key(job_id, item_id), payload)

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Keep the payloads that a job has for `ttl_s` from now."""
        self._shelf.keep(job_id, ttl_s)

    def get(self, job_id: str, item_id: str) -> bytes | None:
        """Read a payload; None when it is not there."""
        return self._folder.get(blob_key(job_id, item_id))

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
