"""What is kept on S3 where the settings say so; boto3 is loaded only then."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from redis import Redis

from worker.jobs.blobs import BlobStore, RedisBlobs
from worker.jobs.errors import SettingsInvalid
from worker.jobs.settings import IN_REDIS, Settings

if TYPE_CHECKING:
    from worker.jobs.parts import ResultParts


def require_boto3() -> None:
    """Raise SettingsInvalid unless boto3 is installed."""
    if find_spec("boto3") is None:
        raise SettingsInvalid("the settings name S3, which needs boto3: install piqueue[s3]")


def open_blobs(settings: Settings, redis: Redis) -> BlobStore:
    """Give the blob store of PIQUEUE_STORAGE_URL."""
    if settings.storage_url == IN_REDIS:
        return RedisBlobs(redis)
    require_boto3()
    from worker.jobs.s3 import Folder
    from worker.jobs.s3blobs import S3Blobs

    return S3Blobs(Folder.open(settings, settings.storage_url), redis)


def open_parts(settings: Settings, redis: Redis) -> "ResultParts | None":
    """Give where results are written to as files, None where they are in Redis alone."""
    if settings.storage_url == IN_REDIS:
        return None
    require_boto3()
    from worker.jobs.parts import ResultParts
    from worker.jobs.s3 import Folder

    return ResultParts(Folder.open(settings, settings.storage_url), redis)
