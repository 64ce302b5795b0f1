"""The blob store: payloads, stored until they are scored or their job expires, and thumbnails."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from redis import Redis

from worker.jobs.settings import Settings, require_boto3
from worker.jobs.storage.file_blobs import FileBlobs
from worker.jobs.storage.redis_blobs import RedisBlobs

if TYPE_CHECKING:
    from worker.jobs.storage.parts import ResultParts


class BlobStore(Protocol):
    """Payloads by job and item id, and packed thumbnails by job and chunk."""

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        """Store payloads; all payloads of the job then expire in `ttl_s`, or if they are in Redis
        and the job is submitted before, with the job."""

    def goes_with_job(self, payloads: Mapping[str, bytes], /) -> bool:
        """Whether all payloads of a small job are stored in the ledger with it.

        The commit then deletes those that have scores.
        """

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Let the payloads of a job expire in `ttl_s`, unless they are in Redis."""

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        """Read payloads in this order; None for a missing one."""

    def expect_thumbnails(self, job_id: str, ttl_s: int) -> None:
        """Let the thumbnails of a job expire in `ttl_s`; called before it is submitted."""

    def put_thumbnails(self, job_id: str, chunk_index: int, packed: bytes, /) -> bytes | None:
        """Store the thumbnails of a chunk; returns those that the commit is to store in Redis.

        None, and nothing is stored, if there is no room for them.
        """

    def thumbnails(self, job_id: str, chunk_index: int) -> bytes | None:
        """Read the thumbnails of a chunk; None if there are none."""

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        """Delete payloads that have scores."""

    def erase(self, job_id: str) -> None:
        """Delete all payloads of a job, now or, if the store does not answer, later."""

    def remove(self, job_id: str) -> None:
        """Delete everything that the store has of a job. Raises StorageUnavailable."""

    def room_bytes(self) -> int | None:
        """How much more the store takes; None if that is unknown."""

    @property
    def keeps_features(self) -> bool:
        """Whether the store has room for features, which outlive the payloads."""

    def put_features(self, job_id: str, blocks: Mapping[str, bytes]) -> None:
        """Store blocks of features by name, until the payloads of the job expire or are erased."""

    def get_features(self, job_id: str, names: Sequence[str]) -> Iterator[bytes | None]:
        """Read blocks of features in this order; None for a missing one."""


def open_storage(settings: Settings, redis: Redis) -> tuple[BlobStore, "ResultParts | None"]:
    """Open the blobs and result files of PIQUEUE_STORAGE_URL; None if results are only in Redis."""
    if settings.storage_folder is not None:
        return FileBlobs(settings.storage_folder, redis, settings.storage_reserve_bytes), None
    if not settings.stores_on_s3:
        return RedisBlobs(redis), None
    require_boto3()
    from worker.jobs.s3 import Folder
    from worker.jobs.storage.parts import ResultParts
    from worker.jobs.storage.s3_blobs import S3Blobs

    folder = Folder.open(settings, settings.storage_url)
    return S3Blobs(folder, redis), ResultParts(folder, redis)
