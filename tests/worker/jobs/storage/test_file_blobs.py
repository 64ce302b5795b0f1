"""Uploads as files: whole or absent, apart from those of others, and removed after a crash."""

import errno
import os
import time
from pathlib import Path

import pytest
from redis import Redis

from api.intake.uploads import BUFFER_FILES, Uploads
from tests.worker.jobs.storage.test_blobs import ODD_IDS, get
from worker.jobs.errors import QueueFull, StorageUnavailable
from worker.jobs.record import new_job_id
from worker.jobs.settings import Settings, load_settings
from worker.jobs.storage.file_blobs import LEFT_OVER_S, MARK, FileBlobs
from worker.jobs.storage.redis_blobs import SMALL_BYTES, RedisBlobs
from worker.upkeep.storage_maintenance import StorageMaintenance


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(storage_url=str(tmp_path / "data" / "uploads"), storage_reserve_bytes=0)


def opened(settings: Settings, redis: Redis) -> FileBlobs:
    assert settings.storage_folder is not None
    return FileBlobs(settings.storage_folder, redis, settings.storage_reserve_bytes)


@pytest.fixture
def blobs(settings: Settings, redis_client: Redis) -> FileBlobs:
    return opened(settings, redis_client)


def files(settings: Settings) -> list[Path]:
    """The files of payloads, complete or not."""
    folder = settings.storage_folder
    assert folder is not None
    return [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]


def test_files_are_private_and_no_name_contains_anything_of_an_item_id(
    blobs: FileBlobs, settings: Settings
) -> None:
    job_id = new_job_id()
    blobs.put(job_id, dict.fromkeys([*ODD_IDS, "/etc/x", "a\0b"], b"x"), 3600)
    assert Path(settings.storage_url).stat().st_mode & 0o077 == 0, "for this user only"
    names = [path.relative_to(settings.storage_url).parts for path in files(settings)]
    assert len(names) == len(ODD_IDS) + 2
    for end, job, digit, digest in names:
        assert (end, job, digit) == (job_id[-2:], job_id, digest[0])
        assert int(digest, 16) >= 0
        assert len(digest) == 64


def upload(blobs: FileBlobs, payloads: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """Add the payloads of a job; gives its id and what is stored with the job."""
    job_id = new_job_id()
    uploads = Uploads(blobs, job_id, 3600, check=lambda _: None)
    for item_id, payload in payloads.items():
        uploads.add(item_id, payload)
    return job_id, uploads.finish()


def test_payloads_of_a_small_job_are_stored_with_it_and_others_are_files(
    blobs: FileBlobs, settings: Settings, redis_client: Redis
) -> None:
    payloads = {"a": b"x" * SMALL_BYTES}
    small, with_job = upload(blobs, payloads)
    assert (with_job, files(settings)) == (payloads, [])
    RedisBlobs(redis_client).put(small, with_job, 3600)
    assert get(blobs, small, "a") == payloads["a"]

    large, with_job = upload(blobs, payloads | {"b": b"x"})
    assert (with_job, len(files(settings))) == ({}, 2)
    assert redis_client.keys(f"*{large}*") == []
    assert get(blobs, large, "a") == payloads["a"]
    blobs.discard(large, ["a", "b"])
    assert get(blobs, large, "a") is None
    assert files(settings) == []


def test_many_payloads_are_files_to_the_last(blobs: FileBlobs, settings: Settings) -> None:
    payloads = {str(at): b"x" for at in range(BUFFER_FILES + 1)}
    assert upload(blobs, payloads)[1] == {}
    assert len(files(settings)) == len(payloads)


def test_payloads_of_a_small_job_are_files_while_redis_is_over_half_full(
    blobs: FileBlobs, settings: Settings, redis_client: Redis
) -> None:
    used = redis_client.info("memory")["used_memory"]
    before = redis_client.config_get("maxmemory")["maxmemory"] or 0
    redis_client.config_set("maxmemory", int(used * 1.5))
    try:
        assert upload(blobs, {"a": b"x"})[1] == {}
    finally:
        redis_client.config_set("maxmemory", before)
    assert len(files(settings)) == 1


@pytest.mark.parametrize(
    ("code", "raised"), [(errno.ENOSPC, QueueFull), (errno.EIO, StorageUnavailable)]
)
def test_a_payload_that_cannot_be_written_is_absent_and_leaves_no_file(
    blobs: FileBlobs,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    raised: type[Exception],
) -> None:
    job_id = new_job_id()

    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(raised):
            blobs.put(job_id, {"a": b"a"}, 3600)
    assert files(settings) == []
    assert get(blobs, job_id, "a") is None
    blobs.put(job_id, {"a": b"a"}, 3600)
    assert get(blobs, job_id, "a") == b"a"


def test_folders_of_scored_and_erased_jobs_are_removed(
    blobs: FileBlobs, settings: Settings
) -> None:
    scored, erased = new_job_id(), new_job_id()
    for job_id in (scored, erased):
        blobs.put(job_id, {str(at): b"x" for at in range(40)}, 3600)
    blobs.discard(scored, [str(at) for at in range(40)])
    blobs.erase(erased)
    assert list(Path(settings.storage_url).glob("*/job_*")) == []


def test_files_are_erased_when_they_expire(
    blobs: FileBlobs, settings: Settings, redis_client: Redis
) -> None:
    short, long, lengthened = new_job_id(), new_job_id(), new_job_id()
    for job_id, ttl_s in ((short, 0), (long, 60), (lengthened, 0)):
        blobs.put(job_id, {"a": b"a"}, ttl_s)
    blobs.keep(lengthened, 60)
    StorageMaintenance(settings, redis_client).run_due()
    assert [get(blobs, job_id, "a") for job_id in (short, long, lengthened)] == [None, b"a", b"a"]


def test_files_of_jobs_that_nothing_schedules_are_erased_after_an_hour(
    blobs: FileBlobs, settings: Settings, redis_client: Redis
) -> None:
    old, fresh, scheduled = (new_job_id() for _ in range(3))
    for job_id in (old, fresh, scheduled):
        blobs.put(job_id, {"a": b"a"}, 3600)
    folder = Path(settings.storage_url)
    others = [folder / "py" / "job_of_others.py", folder / "py" / "happy"]
    for other in others:
        other.mkdir(parents=True)
    redis_client.zrem("piqueue:object-expiry", old, fresh)
    hour_ago = time.time() - LEFT_OVER_S - 60
    for path in (*others, *(folder / job_id[-2:] / job_id for job_id in (old, scheduled))):
        os.utime(path, (hour_ago, hour_ago))
    StorageMaintenance(settings, redis_client).run_due()
    assert [get(blobs, job_id, "a") for job_id in (old, fresh, scheduled)] == [None, b"a", b"a"]
    assert all(other.is_dir() for other in others)


def test_a_process_with_another_folder_of_the_same_path_loses_and_erases_nothing(
    blobs: FileBlobs, settings: Settings, redis_client: Redis
) -> None:
    job_id, folder = new_job_id(), Path(settings.storage_url)
    blobs.put(job_id, {"a": b"a"}, 3600)
    folder.rename(folder.with_name("on another machine"))
    left = folder / job_id[-2:] / job_id
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    redis_client.delete("piqueue:object-expiry")
    worker = opened(settings, redis_client)
    with pytest.raises(StorageUnavailable, match="give the API and all workers the same folder"):
        get(worker, job_id, "a")
    StorageMaintenance(settings, redis_client).run_due()
    assert left.is_dir()


def test_a_new_folder_is_the_same_for_all_as_soon_as_something_is_written(
    blobs: FileBlobs, settings: Settings, redis_client: Redis
) -> None:
    job_id, folder = new_job_id(), Path(settings.storage_url)
    blobs.put(job_id, {"a": b"a"}, 3600)
    folder.rename(folder.with_name("moved away"))
    blobs.put(job_id, {"b": b"b"}, 3600)
    worker = opened(settings, redis_client)
    assert [get(worker, job_id, item_id) for item_id in "ab"] == [None, b"b"]


def test_the_room_is_the_free_space_without_the_reserve(
    settings: Settings, redis_client: Redis
) -> None:
    folder = Path(settings.storage_url)
    assert 0 < FileBlobs(folder, redis_client, 0).room_bytes() < 10**15
    assert FileBlobs(folder, redis_client, 10**15).room_bytes() == 0
