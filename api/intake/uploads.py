"""Uploaded files on their way to the blob store, where writing several at once is quicker."""

from worker.jobs.storage.blobs import BlobStore

# What is held until it is written; a file that is larger than all of it is held alone.
HELD_FILES = 32
HELD_BYTES = 16_000_000


class Uploads:
    """The payloads of one job; those since the last `write` are not in the store yet."""

    def __init__(self, blobs: BlobStore, job_id: str, ttl_s: int) -> None:
        self._blobs = blobs
        self._job_id = job_id
        self._ttl_s = ttl_s
        self._held: dict[str, bytes] = {}
        self._held_bytes = 0

    def add(self, item_id: str, payload: bytes) -> None:
        """Take a payload, and write what is held if that is enough."""
        self._held[item_id] = payload
        self._held_bytes += len(payload)
        if len(self._held) >= HELD_FILES or self._held_bytes >= HELD_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is held."""
        if self._held:
            self._blobs.put(self._job_id, self._held, self._ttl_s)
        self._held, self._held_bytes = {}, 0
