"""An idle draft is erased only while there is no room, and never while a request uses it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from scripts.local.stack import Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from tests.worker.jobs.ledger.test_store import MODEL
from worker.jobs.errors import JobNotFound
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import DraftsOfOwner, JobStore
from worker.jobs.record import JobStatus, new_job_id
from worker.jobs.storage.file_blobs import FileBlobs
from worker.upkeep.idle_drafts import IdleDrafts

NO_ROOM = 10**15


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


def draft_with_upload(store: JobStore, blobs: FileBlobs) -> str:
    draft = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.open_draft(draft)
    store.reserve(draft.id, [("a", b"print", b"")])
    blobs.put(draft.id, {"a": b"12345"}, 3600)
    store.add(draft.id, [(b"print", ItemSpec("a", filename="a"))], 10, 5)
    return draft.id


def test_an_idle_draft_is_erased_with_its_uploads_only_while_there_is_no_room(
    store: JobStore, redis_client: Redis, tmp_path: Path
) -> None:
    def upkeep(reserve_bytes: int, idle_s: float) -> IdleDrafts:
        blobs = FileBlobs(tmp_path, redis_client, reserve_bytes)
        return IdleDrafts(store, Load(redis_client), blobs, idle_s)

    draft_id = draft_with_upload(store, FileBlobs(tmp_path, redis_client, 0))
    upkeep(0, idle_s=0).run_due()
    upkeep(NO_ROOM, idle_s=60).run_due()
    assert store.job(draft_id).status is JobStatus.DRAFT
    upkeep(NO_ROOM, idle_s=0).run_due()
    with pytest.raises(JobNotFound):
        store.job(draft_id)
    assert not list(tmp_path.glob("*/job_*"))
    upkeep(NO_ROOM, idle_s=0).run_due()


def test_the_draft_that_was_used_last_is_erased_last_and_a_job_never(
    store: JobStore, redis_client: Redis, tmp_path: Path
) -> None:
    blobs = FileBlobs(tmp_path, redis_client, 0)
    first, second, cancelled = (draft_with_upload(store, blobs) for _ in range(3))
    load = Load(redis_client)
    assert (store.drafts_of("anyone"), load.upload_bytes("anyone")) == (DraftsOfOwner(3, 3), 15)
    assert (store.drafts_of("another"), load.upload_bytes("another")) == (DraftsOfOwner(0, 0), 0)
    store.cancel(cancelled)
    redis_client.zincrby("piqueue:drafts", -60_000, second)
    redis_client.zincrby("piqueue:drafts", -60_000, first)
    store.touch_draft(first)
    store.touch_draft(cancelled)
    assert [store.erase_idle_draft(30), store.erase_idle_draft(30)] == [second, None]
    assert [store.erase_idle_draft(0), store.erase_idle_draft(0)] == [first, None]
    assert store.job(cancelled).status is JobStatus.CANCELLED
    assert (store.drafts_of("anyone"), load.upload_bytes("anyone")) == (DraftsOfOwner(0, 0), 5)
    store.erase(cancelled)
    assert load.upload_bytes("anyone") == 0


@pytest.fixture
def full_stack(tmp_path: Path) -> Iterator[Stack]:
    env = {"PIQUEUE_STORAGE_RESERVE_BYTES": str(NO_ROOM), "PIQUEUE_DRAFT_IDLE_S": "6"}
    with Stack(tmp_path, env=STACK_ENV | env) as running:
        yield running


def test_a_draft_whose_items_arrive_slowly_outlives_one_that_was_created_later(
    full_stack: Stack,
) -> None:
    host, port = full_stack.url.removeprefix("http://").split(":")
    with (
        httpx2.Client(base_url=full_stack.url) as client,
        socket.create_connection((host, int(port))) as slow,
    ):
        used, idle = (client.post("/jobs", json={"draft": True}).json() for _ in range(2))
        head = f"POST {used['links']['self']}/items HTTP/1.1\r\nHost: localhost\r\n"
        slow.sendall(f"{head}Content-Type: text/csv\r\nContent-Length: 100\r\n\r\nurl\n".encode())
        assert eventually(lambda: client.get(idle["links"]["self"]).status_code == 404, 60)
        assert client.get(used["links"]["self"]).json()["status"] == "draft"
        slow.close()
        assert eventually(lambda: client.get(used["links"]["self"]).status_code == 404, 60)
        gone = client.post(f"{used['links']['self']}/items", files=[("files", ("a", jpeg(1)))])
    assert (gone.status_code, gone.json()["code"]) == (404, "job_not_found")
