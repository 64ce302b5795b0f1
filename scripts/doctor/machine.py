"""This machine: open files, and the disk that a Redis of its own writes to."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from scripts.doctor.redis import open_redis
from scripts.local.serve import DATA
from worker.jobs.settings import Settings

# Beside its downloads a worker has files, Redis and S3 open.
OTHER_FILES = 200
LOW_DISK_BYTES, FULL_DISK_BYTES = 2_000_000_000, 200_000_000


def check_files(settings: Settings) -> Iterator[CheckResult]:
    """See that a process started here may open enough files."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A redirect is a connection more.
    needed = 2 * settings.fetch_concurrency + OTHER_FILES
    if limit == resource.RLIM_INFINITY or limit >= needed:
        yield ok("open files", f"a process may have {_count(limit)} open, a worker needs {needed}")
        return
    yield problem(
        "open files",
        f"a process may have {limit} open, a worker needs {needed}",
        f"ulimit -n {needed} (here up to {_count(most)}), or lower PIQUEUE_FETCH_CONCURRENCY",
    )


def check_disk(settings: Settings) -> Iterator[CheckResult]:
    """See how full the disk of a Redis on this machine is; there is none to see of another."""
    folder = _redis_folder(settings)
    if folder is None:
        yield ok("disk", "no Redis of this machine says where it writes")
        return
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free for Redis in {folder}"
    advice = "make room: once the disk is full Redis takes no writes, and no work is taken or done"
    if free < FULL_DISK_BYTES:
        yield problem("disk", text, advice)
    elif free < LOW_DISK_BYTES:
        yield warning("disk", text, advice)
    else:
        yield ok("disk", text)


def _redis_folder(settings: Settings) -> Path | None:
    """Where a Redis on a unix socket writes, by its word or where `piqueue serve` puts it."""
    if urlsplit(settings.redis_url).scheme == "unix":
        try:
            with open_redis(settings) as client:
                answer: Any = client.config_get("dir")
            if (folder := Path(answer["dir"])).is_dir():  # and not in another container
                return folder
        except (RedisError, OSError, ValueError, LookupError):
            pass
    return DATA if DATA.is_dir() else None


def _count(limit: int) -> str:
    return "any number" if limit == resource.RLIM_INFINITY else str(limit)
