"""Buffers uploaded files, because the blob store is faster with several at once."""

from collections.abc import Callable

from worker.jobs.storage.blobs import BlobStore

# The buffer is written at this size; a larger file is buffered alone.
BUFFER_FILES = 32
BUFFER_BYTES = 16_000_000


class Uploads:
    """The payloads of one job; those in the buffer are not stored yet.

    `check` is called with the size of all payloads before some are stored, and may refuse them.
    """

    def __init__(
        self, blobs: BlobStore, job_id: str, ttl_s: int, check: Callable[[int], None]
    ) -> None:
        self._blobs = blobs
        self._job_id = job_id
        self._check = check
        # The size of all payloads so far.
        self.byte_count = 0
        self._ttl_s = ttl_s
        self._written = False
        self._buffer: dict[str, bytes] = {}
        self._buffer_bytes = 0

    def add(self, item_id: str, payload: bytes) -> None:
        """Buffer a payload, and write the buffer when it is full."""
        self._buffer[item_id] = payload
        self._buffer_bytes += len(payload)
        self.byte_count += len(payload)
        if len(self._buffer) >= BUFFER_FILES or self._buffer_bytes >= BUFFER_BYTES:
            self._write()

    def finish(self) -> dict[str, bytes]:
        """Give what is left in the buffer if the job can be stored with it; else store it."""
        if self._written or not self._blobs.goes_with_job(self._buffer):
            self._write()
        return self._buffer

    def _write(self) -> None:
        if self._buffer:
            self._check(self.byte_count)
            self._blobs.put(self._job_id, self._buffer, self._ttl_s)
        self._buffer, self._buffer_bytes, self._written = {}, 0, True
