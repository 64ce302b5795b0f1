"""Checks this machine: its limit of open files, and its disks for an embedded Redis and uploads."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from redis.exceptions import RedisError

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from scripts.doctor.redis import open_redis
from scripts.local.serve import DATA
from worker.jobs.errors import LedgerUnavailable, StorageUnavailable
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings
from worker.jobs.storage.file_blobs import FileBlobs

# Files and connections to Redis and S3 that a worker opens besides its downloads.
OTHER_FILES = 200
LOW_DISK_BYTES, FULL_DISK_BYTES = 2_000_000_000, 200_000_000


def check_files(settings: Settings) -> Iterator[CheckResult]:
    """Check that a process on this machine may open enough files."""
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A redirect opens a second connection.
    needed = 2 * settings.fetch_concurrency + OTHER_FILES
    text = f"a process may open {_count(limit)}, a worker needs {needed}"
    if limit == resource.RLIM_INFINITY or limit >= needed:
        yield ok("open files", text)
        return
    yield problem(
        "open files",
        text,
        f"ulimit -n {needed} (here up to {_count(hard_limit)}), or lower PIQUEUE_FETCH_CONCURRENCY",
    )


def check_disk(settings: Settings) -> Iterator[CheckResult]:
    """Check the free disk space of a Redis on this machine; that of another is unknown."""
    folder = _redis_folder(settings)
    if folder is None:
        yield ok("disk", "not checked: Redis does not run on this machine")
        return
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free for Redis in {folder}"
    advice = "free disk space: once the disk is full, Redis accepts no writes and all work stops"
    if free < FULL_DISK_BYTES:
        yield problem("disk", text, advice)
    elif free < LOW_DISK_BYTES:
        yield warning("disk", text, advice)
    else:
        yield ok("disk", text)


def check_uploads(settings: Settings) -> Iterator[CheckResult]:
    """Check a folder of uploads: that it can be written, is the one of the API, and has room."""
    folder = settings.storage_folder
    if folder is None:
        yield ok("uploads", f"not in a folder, but in {'S3' if settings.stores_on_s3 else 'Redis'}")
        return
    try:
        with open_redis(settings) as client:
            blobs = FileBlobs(folder, client, settings.storage_reserve_bytes)
            blobs.require_same()
            if not folder.exists():
                yield ok("uploads", f"the first upload creates {folder}")
                return
            with TemporaryFile(dir=folder):
                room = blobs.room_bytes()
    except OSError as error:
        yield problem("uploads", f"{folder}: {error.strerror}", "make the folder writable")
    except StorageUnavailable as error:
        yield problem("uploads", str(error), "without it no uploaded picture is scored")
    except LedgerUnavailable:
        yield warning("uploads", f"{folder} is not checked", "start Redis, then check again")
    else:
        text = f"{folder} takes {room / 1e9:.1f} GB more"
        advice = "free disk space, lower PIQUEUE_STORAGE_RESERVE_BYTES or name another folder"
        yield problem("uploads", text, advice) if not room else ok("uploads", text)


def _redis_folder(settings: Settings) -> Path | None:
    """The folder of a Redis on a unix socket, from its configuration or that of `piqueue serve`."""
    if RedisAddress.parse(settings.redis_url).socket_path:
        try:
            with open_redis(settings) as client:
                answer: Any = client.config_get("dir")
            if (folder := Path(answer["dir"])).is_dir():  # not one of another container
                return folder
        except (RedisError, OSError, LookupError):
            pass
    return DATA if DATA.is_dir() else None


def _count(limit: int) -> str:
    return "any number" if limit == resource.RLIM_INFINITY else str(limit)
