"""The blob store in a folder that the API and the workers share: one file for each payload."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis

from worker.jobs.errors import QueueFull, StorageUnavailable
from worker.jobs.ledger.connection import RedisClient
from worker.jobs.ledger.load import Load
from worker.jobs.storage.expiry import ExpiryIndex
from worker.jobs.storage.redis_blobs import SMALL_SHARE, RedisBlobs

# Files that a process writes at a time: the disk then flushes several at once.
CONCURRENCY = 8
# A folder without an entry in the expiry index is left over if nothing was added for this long.
LEFT_OVER_S = 3600
RETRY_S = 30
JOB_ID = re.compile("job_[0-9A-Z]{26}")
# The file in the folder, and the key in Redis, with the random name of the folder.
MARK = "piqueue-uploads"
MARK_KEY = "piqueue:uploads-folder"
# The folder of a job's features.
FEATURES = "features"


class FileBlobs(RedisClient):
    """A `BlobStore` of files at `{folder}/{end of job id}/{job id}/{digit}/{hash of item id}`.

    Thumbnails are at `thumbnails/{chunk index}` there. A payload is on disk before `put` returns.
    `reserve_bytes` of the disk are left free.
    """

    def __init__(self, folder: Path, redis: Redis, reserve_bytes: int) -> None:
        super().__init__(redis)
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._in_redis = RedisBlobs(redis)
        self._load = Load(redis)
        self._expiry = ExpiryIndex(redis)
        self._pool = ThreadPoolExecutor(CONCURRENCY, "blobs")
        self._marked = False

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        """Write payloads as files.

        Raises:
            QueueFull: the disk is full.
            StorageUnavailable: the folder cannot be written.
        """
        # First, so that the files expire even if this process dies now.
        self._expiry.put(job_id, ttl_s)
        files = {self._file(job_id, item_id): payload for item_id, payload in payloads.items()}
        with self._errors():
            self._mark()
            for folder in {file.parent for file in files}:
                folder.mkdir(parents=True, exist_ok=True)
            for _ in self._pool.map(_write, files, files.values()):
                pass
            changed = {folder for file in files for folder in file.parents[:4]}
            for _ in self._pool.map(_flush, changed):
                pass

    def goes_with_job(self, payloads: Mapping[str, bytes], /) -> bool:
        """Whether they are small enough for Redis, and it has room."""
        fits = self._in_redis.goes_with_job(payloads)
        return fits and self._load.memory_share() <= SMALL_SHARE

    def keep(self, job_id: str, ttl_s: int) -> None:
        self._expiry.keep(job_id, ttl_s)

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        if self._in_redis.has(job_id):
            yield from self._in_redis.get(job_id, item_ids)
            return
        for item_id in item_ids:
            with self._errors():
                try:
                    payload = self._file(job_id, item_id).read_bytes()
                except FileNotFoundError:
                    payload = None
            if payload is None:
                self.require_same()
            yield payload

    def expect_thumbnails(self, job_id: str, ttl_s: int) -> None:
        self._expiry.put(job_id, ttl_s)

    def put_thumbnails(self, job_id: str, chunk_index: int, packed: bytes, /) -> bytes | None:
        if self.room_bytes() < len(packed):
            return None
        file = self._thumbnails(job_id, chunk_index)
        with self._errors():
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, packed)
        return b""

    def thumbnails(self, job_id: str, chunk_index: int) -> bytes | None:
        with self._errors():
            try:
                return self._thumbnails(job_id, chunk_index).read_bytes()
            except FileNotFoundError:
                return None

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        files = [self._file(job_id, item_id) for item_id in item_ids]
        with self._errors():
            for file in files:
                file.unlink(missing_ok=True)
        for folder in (*{file.parent for file in files}, self._job(job_id)):
            with suppress(OSError):  # others are in it
                folder.rmdir()

    def erase(self, job_id: str) -> None:
        """Delete all payloads of a job, now or, if the folder cannot be written, by a worker."""
        self._in_redis.erase(job_id)
        self._expiry.clear(job_id, self.remove)

    def remove(self, job_id: str) -> None:
        """Delete the files of a job.

        Raises:
            StorageUnavailable: some are left.
        """
        folder = self._job(job_id)
        shutil.rmtree(folder, ignore_errors=True)  # others may delete files of it at the same time
        if folder.exists():
            raise StorageUnavailable(f"{folder} cannot be deleted")

    def room_bytes(self) -> int:
        """How much more the disk takes."""
        with self._errors():
            try:
                free_bytes = shutil.disk_usage(self._folder).free
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                free_bytes = shutil.disk_usage(self._folder).free
            return max(0, free_bytes - self._reserve_bytes)

    keeps_features = True

    def put_features(self, job_id: str, blocks: Mapping[str, bytes]) -> None:
        """Write blocks as files, one after the other.

        Raises:
            QueueFull: the disk is full.
            StorageUnavailable: the folder cannot be written.
        """
        with self._errors():
            if sum(map(len, blocks.values())) > self.room_bytes():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            folder = self._job(job_id) / FEATURES
            folder.mkdir(parents=True, exist_ok=True)
            for name, block in blocks.items():
                _write(folder / name, block)

    def get_features(self, job_id: str, names: Sequence[str]) -> Iterator[bytes | None]:
        folder = self._job(job_id) / FEATURES
        for name in names:
            with self._errors():
                try:
                    block = (folder / name).read_bytes()
                except FileNotFoundError:
                    block = None
            yield block

    def require_same(self) -> None:
        """Check that this process has the folder to which the API writes.

        Raises:
            StorageUnavailable: it has another one of the same path.
        """
        expected = self._redis.get(MARK_KEY)
        if expected is not None and expected != self._read_mark():
            raise StorageUnavailable(
                f"{self._folder} is not the folder to which the API writes uploads: give the API "
                "and all workers the same folder, or name a bucket in PIQUEUE_STORAGE_URL"
            )

    def remove_left_over(self) -> list[str]:
        """Delete files of jobs that are not scheduled, as after a crash; gives the ids of the jobs.

        Raises:
            StorageUnavailable: the folder belongs to another Redis, or cannot be written.
        """
        self.require_same()
        old = time.time() - LEFT_OVER_S
        removed = []
        with self._errors():
            for folder in self._folder.glob("??/job_*"):
                job_id = folder.name
                with suppress(FileNotFoundError):  # another worker has removed it
                    if not JOB_ID.fullmatch(job_id) or folder.stat().st_mtime > old:
                        continue
                if not self._expiry.has(job_id):
                    self.remove(job_id)
                    removed.append(job_id)
        return removed

    def _job(self, job_id: str) -> Path:
        return self._folder / job_id[-2:] / job_id

    def _file(self, job_id: str, item_id: str) -> Path:
        digest = hashlib.sha256(item_id.encode()).hexdigest()
        return self._job(job_id) / digest[0] / digest

    def _thumbnails(self, job_id: str, chunk_index: int) -> Path:
        return self._job(job_id) / "thumbnails" / str(chunk_index)

    def _read_mark(self) -> bytes | None:
        try:
            return (self._folder / MARK).read_bytes()
        except FileNotFoundError:
            return None

    def _mark(self) -> None:
        """Let workers know this folder, once in each process and whenever the folder is new."""
        if self._marked and (self._folder / MARK).exists():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f".{MARK}-{secrets.token_hex(8)}"
        fresh.write_text(secrets.token_hex(16))
        with suppress(FileExistsError):
            os.link(fresh, self._folder / MARK)
        fresh.unlink()
        self._redis.set(MARK_KEY, (self._folder / MARK).read_bytes())
        self._marked = True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise QueueFull(
                    "the disk for uploaded pictures is full: try again later", RETRY_S
                ) from error
            raise StorageUnavailable(
                f"{self._folder}: {error.strerror or error}: the operator must make the folder of "
                "PIQUEUE_STORAGE_URL readable and writable"
            ) from error


def _write(file: Path, payload: bytes) -> None:
    """Write a file under its name only when it is complete and on disk."""
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as opened:
            opened.write(payload)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.rename(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _flush(folder: Path) -> None:
    """Flush the names of the files in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
