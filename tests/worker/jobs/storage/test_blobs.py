"""The blob stores keep one contract, on a real Redis and on a real S3 server."""

from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from aiohttp import web
from redis import Redis

from scripts.images.s3_server import BUCKET, S3Server
from tests.worker.fetching.site import Site
from worker.jobs.errors import SettingsInvalid, StorageUnavailable
from worker.jobs.record import new_job_id
from worker.jobs.s3 import Folder, connect_s3, encryption
from worker.jobs.settings import Settings, load_settings
from worker.jobs.storage.blobs import BlobStore, open_storage
from worker.jobs.storage.expiry import ExpiryIndex
from worker.jobs.storage.redis_blobs import SMALL_BYTES, RedisBlobs
from worker.jobs.storage.s3_blobs import CONCURRENCY, READ_AHEAD, S3Blobs, blob_key
from worker.upkeep.storage_maintenance import StorageMaintenance

_SSE = ("", "-aws-kms-key-id")
ODD_IDS = ["a.jpg", "a b/ü%2F?#.jpg", ".", "..", "../x", "ä" * 200, "x" * 200 + "1", "x" * 200]


def s3_settings(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, prefix: str = "up", **more: str
) -> Settings:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return load_settings(storage_url=f"s3://{BUCKET}/{prefix}", **more)


@pytest.fixture(params=["redis", "files", "s3"])
def blobs(
    request: pytest.FixtureRequest,
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> BlobStore:
    if request.param != "s3":
        urls = {"redis": "redis", "files": str(tmp_path / "uploads")}
        return open_storage(load_settings(storage_url=urls[request.param]), redis_client)[0]
    server: S3Server = request.getfixturevalue("s3_server")
    return open_storage(s3_settings(server, monkeypatch), redis_client)[0]


def get(blobs: BlobStore, job_id: str, item_id: str) -> bytes | None:
    (payload,) = blobs.get(job_id, [item_id])
    return payload


def test_each_payload_is_read_back_by_its_job_and_id(blobs: BlobStore) -> None:
    jobs = [new_job_id(), new_job_id()]
    for job_id in jobs:
        for item_id in ODD_IDS:
            blobs.put(job_id, {item_id: f"{job_id} {item_id}".encode()}, 3600)
    for job_id in jobs:
        for item_id in ODD_IDS:
            assert get(blobs, job_id, item_id) == f"{job_id} {item_id}".encode()


def test_a_missing_payload_is_none(blobs: BlobStore) -> None:
    assert get(blobs, new_job_id(), "a.jpg") is None


def test_a_payload_put_again_is_replaced(blobs: BlobStore) -> None:
    job_id = new_job_id()
    blobs.put(job_id, {"a": b"first"}, 3600)
    blobs.put(job_id, {"a": b""}, 3600)
    assert get(blobs, job_id, "a") == b""


def test_features_are_stored_apart_from_payloads_and_erased_with_them(blobs: BlobStore) -> None:
    job_id, other = new_job_id(), new_job_id()
    if not blobs.keeps_features:
        assert list(blobs.get_features(job_id, ["00000-a"])) == [None]
        return
    for one in (job_id, other):
        blobs.put(one, {}, 3600)
        blobs.put_features(one, {"00000-a": one.encode(), "00001-a": b"first"})
    blobs.put_features(job_id, {"00001-a": b"second"})
    blobs.discard(job_id, ["00000-a"])
    names = ["00001-a", "00002-a", "00000-a"]
    assert list(blobs.get_features(job_id, names)) == [b"second", None, job_id.encode()]
    assert get(blobs, job_id, "00000-a") is None
    blobs.erase(job_id)
    assert list(blobs.get_features(job_id, names)) == [None, None, None]
    assert list(blobs.get_features(other, ["00000-a"])) == [other.encode()]


def test_a_large_payload_is_read_back_unchanged(blobs: BlobStore) -> None:
    job_id, payload = new_job_id(), bytes(range(256)) * 80_000
    blobs.put(job_id, {"large": payload}, 3600)
    assert get(blobs, job_id, "large") == payload


@pytest.mark.parametrize("blobs", ["files", "s3"], indirect=True)
def test_discarding_deletes_only_the_named_payloads(blobs: BlobStore) -> None:
    """Those in Redis are deleted by the commit."""
    job_id = new_job_id()
    for item_id in ("a", "b", "c"):
        blobs.put(job_id, {item_id: item_id.encode()}, 3600)
    blobs.discard(job_id, ["a", "c", "never was"])
    blobs.discard(job_id, [])
    assert [get(blobs, job_id, item_id) for item_id in "abc"] == [None, b"b", None]


def test_erasing_a_job_keeps_the_payloads_of_others(blobs: BlobStore) -> None:
    first, second = new_job_id(), new_job_id()
    for job_id in (first, second):
        blobs.put(job_id, {"a": b"a"}, 3600)
    blobs.erase(first)
    blobs.erase(new_job_id())
    assert get(blobs, first, "a") is None
    assert get(blobs, second, "a") == b"a"


def test_a_large_payload_is_sent_in_parts_and_its_key_is_predictable(
    s3_server: S3Server, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_storage(s3_settings(s3_server, monkeypatch, "deep/down"), redis_client)[0]
    job_id = new_job_id()
    blobs.put(job_id, {"a b.jpg": b"x" * 20_000_000}, 3600)
    (key,) = s3_server.keys(f"deep/down/{job_id}/")
    assert key == f"deep/down/{job_id}/in/a%20b.jpg" == f"deep/down/{blob_key(job_id, 'a b.jpg')}"
    etag = s3_server.client.head_object(Bucket=BUCKET, Key=key)["ETag"]
    assert etag.strip('"').endswith("-3"), "three parts of 8 MiB"


def test_payloads_on_s3_are_erased_when_they_expire(
    s3_server: S3Server, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_settings(s3_server, monkeypatch)
    blobs, maintenance = (
        open_storage(settings, redis_client)[0],
        StorageMaintenance(settings, redis_client),
    )
    short, long, lengthened = new_job_id(), new_job_id(), new_job_id()
    for job_id, ttl_s in ((short, 0), (long, 60), (lengthened, 0)):
        blobs.put(job_id, {"a": b"a"}, ttl_s)
    blobs.keep(lengthened, 60)
    blobs.keep(new_job_id(), 0)
    maintenance.run_due()
    assert [get(blobs, job_id, "a") for job_id in (short, long, lengthened)] == [None, b"a", b"a"]
    assert ExpiryIndex(redis_client).due(10) == []
    assert redis_client.zcard("piqueue:object-expiry") == 2


def test_payloads_erased_while_s3_is_unavailable_are_deleted_later(
    s3_server: S3Server, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_settings(s3_server, monkeypatch)
    blobs, maintenance = (
        open_storage(settings, redis_client)[0],
        StorageMaintenance(settings, redis_client),
    )
    job_id = new_job_id()
    blobs.put(job_id, {"a": b"a"}, 3600)
    s3_server.stop()
    try:
        with pytest.raises(StorageUnavailable, match="S3 does not answer"):
            get(blobs, job_id, "a")
        blobs.erase(job_id)
        redis_client.zincrby("piqueue:object-expiry", -3600_000, job_id)
        maintenance.run_due()
    finally:
        s3_server.start()
    assert get(blobs, job_id, "a") == b"a"
    redis_client.zincrby("piqueue:object-expiry", -3600_000, job_id)
    maintenance.run_due()
    assert get(blobs, job_id, "a") is None


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        ({"s3_encryption": "AES256"}, ["AES256", None]),
        ({"s3_encryption": "aws:kms"}, ["aws:kms", None]),
        ({"s3_encryption": "aws:kms", "s3_kms_key_id": "alias/mine"}, ["aws:kms", "alias/mine"]),
    ],
)
def test_each_upload_requests_encryption(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], headers: list[str]
) -> None:
    settings = s3_settings(s3_server, monkeypatch, **asked)
    sent: list[tuple[str, list[str | None]]] = []

    def note(request: Any, **_: object) -> None:
        found = (request.headers.get(f"x-amz-server-side-encryption{end}") for end in _SSE)
        sent.append((request.method, [value and value.decode() for value in found]))

    client = connect_s3(settings)
    client.meta.events.register("before-send.s3", note)
    folder = Folder(client, settings.storage_url, encryption(settings))
    # This server has none, and says so.
    for payload in (b"small", b"x" * 9_000_000):
        with pytest.raises(StorageUnavailable, match="NotImplemented"):
            folder.put(f"{new_job_id()}/in/a", payload)
    assert sent == [("PUT", headers), ("POST", headers)]


def test_many_payloads_are_written_at_once_and_read_in_order(
    s3_server: S3Server, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_settings(s3_server, monkeypatch)
    side_by_side = {"PUT": Barrier(CONCURRENCY), "GET": Barrier(READ_AHEAD)}

    def meet(request: Any, **_: object) -> None:
        side_by_side[request.method].wait(30)  # or it is broken, and all fail

    client = connect_s3(settings)
    client.meta.events.register("before-send.s3", meet)
    blobs = S3Blobs(Folder(client, settings.storage_url, {}), redis_client)
    job_id = new_job_id()
    payloads = {f"{at}.jpg": b"%d" % at for at in range(2 * CONCURRENCY)}
    blobs.put(job_id, payloads, 3600)
    assert list(blobs.get(job_id, payloads)) == list(payloads.values())


def test_transient_errors_of_s3_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [503, 500, 200]

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=statuses.pop(0), body=b"payload")

    with Site({f"/{BUCKET}/up/a": answer}) as site:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        settings = load_settings(
            storage_url=f"s3://{BUCKET}/up",
            s3_endpoint_url=site.url("").rstrip("/"),
            s3_region="us-east-1",
            s3_path_style=True,
        )
        assert Folder.open(settings, settings.storage_url).get("a") == b"payload"
    assert statuses == []


@pytest.mark.parametrize(
    ("path_style", "begins"),
    [
        (True, "https://s3.example.com/pictures/"),
        (False, "https://pictures.s3.example.com/"),
        (None, "https://s3.example.com/pictures/"),
    ],
)
def test_the_bucket_is_named_in_the_path_or_the_host(
    monkeypatch: pytest.MonkeyPatch, path_style: bool | None, begins: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    settings = load_settings(
        storage_url="s3://pictures/up",
        s3_endpoint_url="https://s3.example.com",
        s3_region="eu-1",
        s3_path_style=path_style,
    )
    assert Folder.open(settings, settings.storage_url).presign("a", 60).startswith(f"{begins}up/a?")


def test_all_objects_of_a_job_are_erased_in_batches(
    s3_server: S3Server, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_settings(s3_server, monkeypatch)
    deleted: list[int] = []

    def in_small_pages(params: dict[str, Any], **_: object) -> dict[str, Any]:
        return {**params, "MaxKeys": 7}

    def note(params: dict[str, Any], **_: object) -> None:
        deleted.append(len(params["Delete"]["Objects"]))

    client = connect_s3(settings)
    client.meta.events.register("provide-client-params.s3.ListObjectsV2", in_small_pages)
    client.meta.events.register("provide-client-params.s3.DeleteObjects", note)
    monkeypatch.setattr("worker.jobs.s3.DELETED_AT_ONCE", 7)
    blobs = S3Blobs(Folder(client, settings.storage_url, {}), redis_client)
    job_id = new_job_id()
    blobs.put(job_id, {str(at): b"x" for at in range(30)}, 3600)
    blobs.erase(job_id)
    assert s3_server.keys(f"up/{job_id}/") == []
    assert len(deleted) >= 5
    assert max(deleted) <= 7


def test_an_error_contains_neither_keys_nor_addresses(
    s3_server: S3Server, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_settings(s3_server, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(StorageUnavailable) as refused:
        get(open_storage(settings, redis_client)[0], new_job_id(), "a")
    assert str(refused.value) == "S3 answers 403 (SignatureDoesNotMatch)"
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("storage_url", "S3://bucket"),
        ("storage_url", "https://bucket/"),
        ("storage_url", "s3://"),
        ("storage_url", "s3://bucket/a?b"),
        ("s3_endpoint_url", "s3.example.com"),
        ("s3_endpoint_url", "https://user:secret@s3.example.com"),
        ("s3_encryption", "rot13"),
        ("s3_kms_key_id", "alias/mine"),
    ],
)
def test_contradictory_settings_stop_the_start(setting: str, value: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"PIQUEUE_{setting.upper()}") as refused:
        load_settings(**{setting: value})
    assert "secret" not in str(refused.value)


def test_s3_without_boto3_stops_the_start_with_what_to_install(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.settings.find_spec", lambda _name: None)
    open_storage(load_settings(), redis_client)[0]
    with pytest.raises(SettingsInvalid, match=r"install piqueue-server\[s3\]"):
        open_storage(load_settings(storage_url="s3://bucket/up"), redis_client)


def test_a_claimed_job_is_due_again_when_its_lease_ends(redis_client: Redis) -> None:
    index = ExpiryIndex(redis_client)
    index.put("a", 0)
    index.put("later", 3600)
    assert index.due(10) == ["a"]
    assert index.claim("a", 60)
    assert not index.claim("a", 60), "another worker has claimed it"
    assert not index.claim("later", 1)
    assert not index.claim("never was", 1)
    redis_client.hincrby("piqueue:clock", "offset", 60_000)  # as if time had passed
    assert index.claim("a", 60)
    index.remove("a")
    assert not index.move("a", 0)
    assert index.move("later", 0)
    assert index.due(10) == ["later"]


def test_only_small_payloads_are_stored_in_one_step_with_their_job(redis_client: Redis) -> None:
    blobs = RedisBlobs(redis_client)
    assert blobs.goes_with_job({"a": b"x" * (SMALL_BYTES - 1), "b": b"x"})
    assert not blobs.goes_with_job({"a": b"x" * SMALL_BYTES, "b": b"x"})
