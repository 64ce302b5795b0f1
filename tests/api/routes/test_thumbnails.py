"""Thumbnails: made by workers for jobs that ask, kept with the job in every store."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from redis import Redis
from structlog.testing import capture_logs

from api.results.thumbnails import read_thumbnails
from model.images.result import DecodedImage
from model.images.thumbnail import thumbnail as thumbnail_of
from scripts.images.s3_server import BUCKET, S3Server
from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from worker.jobs.errors import StorageUnavailable
from worker.jobs.items import ItemSpec, pack_specs
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import job_key
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import NO_THUMBNAILS
from worker.jobs.record import Counts, Job, JobStatus, Lane, ModelRef
from worker.jobs.settings import load_settings
from worker.jobs.storage.blobs import open_storage
from worker.jobs.storage.redis_blobs import RedisBlobs
from worker.jobs.storage.thumbnails import pack_thumbnails, unpack_thumbnail
from worker.scoring.thumbnails import Thumbnails

MOST = 5


@dataclass(frozen=True)
class Kept:
    """A running Piqueue, and the names of what its store has of the thumbnails of a job."""

    url: str
    names: Callable[[str], list[str]]


@pytest.fixture(scope="module", params=["redis", "files", "s3"])
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept]:
    """Run a stack with each of the stores, and thumbnails of the first five pictures."""
    folder = tmp_path_factory.mktemp("thumbnails")
    env = {**STACK_ENV, "PIQUEUE_MAX_THUMBNAILS": str(MOST), "PIQUEUE_CHUNK_ITEMS": "2"}
    env["PIQUEUE_STORAGE_URL"] = "redis"
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        env |= {**server.env, "PIQUEUE_STORAGE_URL": f"s3://{BUCKET}/thumbnails"}

        def names(job_id: str) -> list[str]:
            below = f"thumbnails/{job_id}/thumbnails/"
            found = server.client.list_objects_v2(Bucket=BUCKET, Prefix=below)
            return [one["Key"] for one in found.get("Contents", [])]

    elif request.param == "files":
        env["PIQUEUE_STORAGE_URL"] = str(folder / "uploads")

        def names(job_id: str) -> list[str]:
            return [path.name for path in (folder / "uploads").glob(f"*/{job_id}/thumbnails/*")]

    with Stack(folder / "stack", env=env) as running:
        if request.param == "redis":
            redis = Redis.from_url(running.redis_url)

            def names(job_id: str) -> list[str]:
                return [*map(str, redis.hkeys(job_key(job_id, "thumbnails")))]

        yield Kept(running.url, names)


@pytest.fixture
def api(kept: Kept) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=kept.url, timeout=60) as client:
        yield client


def sideways() -> bytes:
    """A picture of 300 x 100 pixels, red on its left, that EXIF turns by a quarter."""
    image = Image.new("RGB", (300, 100), "blue")
    image.paste("red", (0, 0, 150, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    target = io.BytesIO()
    image.save(target, "JPEG", exif=exif)
    return target.getvalue()


def submit(client: httpx2.Client, payloads: list[bytes], options: str) -> dict[str, Any]:
    files: list[Any] = [("files", (f"{at}.jpg", one)) for at, one in enumerate(payloads)]
    files.append(("options", (None, options, "application/json")))
    return wait_done(client, client.post("/jobs", files=files).raise_for_status().json())


def thumbnail(client: httpx2.Client, job: dict[str, Any], index: int) -> httpx2.Response:
    return client.get(f"/jobs/{job['id']}/items/{index}/thumbnail")


def upload_bytes(client: httpx2.Client) -> int:
    return int(client.get("/limits").raise_for_status().json()["upload_bytes"])


def test_thumbnails_are_kept_with_their_job_and_deleted_with_it(
    kept: Kept, api: httpx2.Client
) -> None:
    payloads = [jpeg(0, 800, 600), b"\xff\xd8\xff no picture", sideways(), *map(jpeg, range(3, 8))]
    job = submit(api, payloads, '{"thumbnails": true}')
    assert job["thumbnails"] == api.get("/limits").json()["max_thumbnails"] == MOST
    sizes = {}
    for index in (0, 2, 3, 4):
        answer = thumbnail(api, job, index).raise_for_status()
        assert answer.headers["content-type"] == "image/webp"
        assert len(answer.content) <= 4096
        image = Image.open(io.BytesIO(answer.content))
        assert image.format == "WEBP"
        sizes[index] = image.size
    assert sizes == {0: (160, 120), 2: (53, 160), 3: (160, 120), 4: (160, 120)}
    upright = Image.open(io.BytesIO(thumbnail(api, job, 2).content)).convert("RGB")
    red, _, blue = upright.getpixel((26, 20))  # type: ignore[misc]
    assert red > 150 > 100 > blue, "EXIF turns the left to the top"
    answer = thumbnail(api, job, 0)
    assert answer.headers["cache-control"] == "private, max-age=86400, immutable"
    assert answer.headers["vary"] == "Authorization"
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = api.head(f"/jobs/{job['id']}/items/0/thumbnail")
    assert (head.status_code, head.content) == (200, b"")
    for index in (1, 5, 10**12):
        missing = thumbnail(api, job, index)
        assert (missing.status_code, missing.json()["code"]) == (404, "thumbnail_not_found")
    report = api.get(f"/jobs/{job['id']}/report").text
    assert report.count("data:image/webp;base64,") >= 4

    assert len(kept.names(job["id"])) == 3, "one value for each chunk"
    before, sizes_sum = upload_bytes(api), sum(len(thumbnail(api, job, at).content) for at in sizes)
    assert before > sizes_sum > 4 * 100, "they count as stored"
    api.delete(f"/jobs/{job['id']}").raise_for_status()
    assert kept.names(job["id"]) == []
    assert upload_bytes(api) < before - sizes_sum
    assert thumbnail(api, job, 0).json()["code"] == "job_not_found"


def test_a_retry_has_the_thumbnails_of_its_parent_and_others_have_none(
    kept: Kept, api: httpx2.Client
) -> None:
    answers = {"/a.jpg": [404, 200]}

    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        status = answers["/a.jpg"].pop(0)
        return web.Response(status=status, body=jpeg(1) if status == 200 else b"")

    with Site({"/a.jpg": picture}) as site:
        body = {"urls": [site.url("/a.jpg")], "thumbnails": True}
        failed = wait_done(api, api.post("/jobs", json=body).json())
        assert thumbnail(api, failed, 0).status_code == 404
        retry = wait_done(api, api.post(f"/jobs/{failed['id']}/retry").json())
    assert thumbnail(api, retry, 0).status_code == 200
    assert len(kept.names(retry["id"])) == 1
    without = submit(api, [jpeg(1)], "{}")
    assert without["thumbnails"] == 0
    assert thumbnail(api, without, 0).json()["code"] == "thumbnail_not_found"
    assert kept.names(without["id"]) == []


def test_a_draft_and_a_table_take_the_option(api: httpx2.Client) -> None:
    draft = api.post("/jobs", json={"draft": True, "thumbnails": True}).raise_for_status().json()
    path = f"/jobs/{draft['id']}"
    api.post(f"{path}/items", files=[("files", ("a.jpg", jpeg(1)))]).raise_for_status()
    assert thumbnail(api, wait_done(api, api.post(f"{path}/submit").json()), 0).status_code == 200

    def submit_table(thumbnails: str) -> httpx2.Response:
        return api.post(
            f"/jobs?thumbnails={thumbnails}",
            content="url\nhttp://127.0.0.1:9/a.jpg\n",
            headers={"Content-Type": "text/csv"},
        )

    assert submit_table("true").raise_for_status().json()["thumbnails"] == 1
    refused = submit_table("small")
    assert (refused.status_code, "thumbnails" in refused.json()["detail"]) == (422, True)


def test_the_thumbnails_of_a_chunk_are_found_by_position() -> None:
    packed = pack_thumbnails({1: b"one", 3: b"three"})
    assert [unpack_thumbnail(packed, at) for at in range(5)] == [None, b"one", None, b"three", None]
    assert pack_thumbnails({}) == b""


class OneValue(RedisBlobs):
    """Has the same packed thumbnails for each chunk."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def thumbnails(self, _job_id: str, _chunk_index: int) -> bytes | None:
        return self.packed


def test_damaged_thumbnails_count_as_missing_and_are_logged() -> None:
    counts = Counts(2, 0, 2, 0, 0)
    model = ModelRef("scenes", "3", "0" * 64)
    job = Job("job_x", "owner", JobStatus.SUCCEEDED, model, Lane.BULK, counts, 2, 0, 0)
    job = replace(job, thumbnails=2)
    packed = pack_thumbnails({0: b"zero", 1: b"one"})
    assert read_thumbnails(OneValue(packed), job, [0, 1, 2]) == {0: b"zero", 1: b"one"}
    for damaged in (packed[:1], packed[:5], packed[:-1], packed + b"x", b"other bytes"):
        with capture_logs() as logs:
            assert read_thumbnails(OneValue(damaged), job, [0, 1]) == {}
        (logged,) = logs
        assert (logged["event"], logged["chunk_index"]) == ("thumbnails_damaged", 0)


def test_a_thumbnail_has_few_bytes_whatever_it_is_of() -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    for width, height in ((4000, 3000), (1, 9000), (12, 7)):
        made = thumbnail_of(DecodedImage(noise, "png", width, height), 4096)
        assert len(made) <= 4096
        assert max(Image.open(io.BytesIO(made)).size) <= min(160, max(width, height))
    assert len(thumbnail_of(DecodedImage(noise, "png", 4000, 4000), 900)) <= 900


def test_redis_that_is_half_full_keeps_no_thumbnails(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, _ = open_storage(load_settings(storage_url="redis"), redis_client)
    assert blobs.put_thumbnails("job_1", 0, b"packed") == b"packed"
    monkeypatch.setattr(Load, "memory_share", lambda _: 0.51)
    assert blobs.put_thumbnails("job_1", 0, b"packed") is None


def test_a_store_that_fails_costs_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claim(
        *("job_1", 0, 1, ModelRef("m", "1", "0"), Lane.BULK, 0, False),
        *(pack_specs([ItemSpec("0"), ItemSpec("1")]), (), 0.0),
        thumbnails=1,
    )
    made = Thumbnails([claim])
    for position in range(2):
        made.add(position, DecodedImage(np.zeros((8, 8, 3), np.uint8), "png", 8, 8))

    class Store(RedisBlobs):
        def __init__(self) -> None:
            self.packed = b""

        def put_thumbnails(self, _job_id: str, _chunk_index: int, packed: bytes, /) -> bytes:
            self.packed = packed
            raise StorageUnavailable("away")

    store = Store()
    assert made.store(store) == [NO_THUMBNAILS]
    assert unpack_thumbnail(store.packed, 0)
    assert unpack_thumbnail(store.packed, 1) is None, "only the first item gets one"
