"""Opens the storage of the settings; boto3 is imported only for S3."""

from typing import TYPE_CHECKING

from redis import Redis

from worker.jobs.settings import IN_REDIS, Settings, require_boto3
from worker.jobs.storage.blobs import BlobStore, RedisBlobs

if TYPE_CHECKING:
    from worker.jobs.storage.parts import ResultParts


def open_blobs(settings: Settings, redis: Redis) -> BlobStore:
    """Open the blob store of PIQUEUE_STORAGE_URL."""
    if settings.storage_url == IN_REDIS:
        return RedisBlobs(redis)
    require_boto3()
    from worker.jobs.s3 import Folder
    from worker.jobs.storage.s3_blobs import S3Blobs

    return S3Blobs(Folder.open(settings, settings.storage_url), redis)


def open_parts(settings: Settings, redis: Redis) -> "ResultParts | None":
    """Open the storage for result files; None if results are in Redis only."""
    if settings.storage_url == IN_REDIS:
        return None
    require_boto3()
    from worker.jobs.s3 import Folder
    from worker.jobs.storage.parts import ResultParts

    return ResultParts(Folder.open(settings, settings.storage_url), redis)
