"""A whole Piqueue with its uploads and results on a real S3 server."""

import ast
import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from scripts.images.s3_server import BUCKET, PASSWORD, S3Server
from scripts.local.stack import Stack
from tests.api.polling import all_results, wait_done
from tests.conftest import STACK_ENV
from tests.documents import runnable
from tests.pictures import jpeg
from tests.worker.fetching.site import Site

DEADLINE_S = 60
OUTAGE_S = 12


def env(server: S3Server) -> dict[str, str]:
    return {
        **STACK_ENV,
        **server.env,
        "PIQUEUE_STORAGE_URL": f"s3://{BUCKET}/jobs/",
        "PIQUEUE_S3_FETCH_BUCKETS": f"other, {BUCKET}",
        "PIQUEUE_CHUNK_ITEMS": "8",
        "PIQUEUE_LEASE_S": "4",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("on-s3")


@pytest.fixture(scope="module")
def on_s3(folder: Path, s3_server: S3Server) -> Iterator[httpx2.Client]:
    """Give a client of a stack that keeps all it can on S3."""
    with (
        Stack(folder, env=env(s3_server)) as running,
        httpx2.Client(base_url=running.url, timeout=60) as client,
    ):
        yield client


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return seen


def files(count: int) -> list[Any]:
    return [("files", (f"{index}.jpg", jpeg(index))) for index in range(count)]


def parts_of(client: httpx2.Client, job: dict[str, Any], **params: Any) -> dict[str, Any]:
    """Wait for the manifest of a job that is done, and list its parts."""

    def listed() -> dict[str, Any] | None:
        answer = client.get(f"{job['links']['results']}/parts", params=params)
        if answer.status_code == 503:
            assert answer.json()["code"] == "parts_not_ready"
            return None
        body: dict[str, Any] = answer.raise_for_status().json()
        return body

    found: dict[str, Any] = until(listed)
    return found


def test_s3_items_are_fetched_with_the_workers_own_credentials(
    on_s3: httpx2.Client, s3_server: S3Server
) -> None:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(100))

    urls = [s3_server.put(f"in/{at} %2F?ü.jpg", jpeg(at)) for at in range(20)]
    urls.insert(7, f"s3://{BUCKET}/in/missing.jpg")
    urls.insert(9, s3_server.put("in/large.jpg", bytes(1_000_001)))
    urls.insert(11, "s3://other/a.jpg")
    with Site({"/a.jpg": picture}) as site:
        urls.insert(13, site.url("/a.jpg"))
        job = wait_done(on_s3, on_s3.post("/jobs", json={"urls": urls}).json())

    results = {result["source"]["url"]: result for result in job["results"]}
    assert list(results) == urls
    errors = {at: results[url]["error"] for at, url in enumerate(urls) if results[url]["error"]}
    assert {at: (error["code"], error["detail"]) for at, error in errors.items()} == {
        7: ("fetch_http_status", "answered 404 (NoSuchKey)"),
        9: ("fetch_too_large", "larger than 1,000,000 bytes"),
        11: ("fetch_http_status", "answered 404 (NoSuchBucket)"),
    }
    for seed, url in enumerate(url for at, url in enumerate(urls) if at not in (7, 9, 11, 13)):
        assert results[url]["image"]["sha256"] == hashlib.sha256(jpeg(seed)).hexdigest()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://elsewhere/a.jpg", "PIQUEUE_S3_FETCH_BUCKETS"),
        (f"s3://{BUCKET}", "s3://bucket/key"),
        (f"s3://{BUCKET}/", "s3://bucket/key"),
        (f"s3://{BUCKET}/a\nb", "not printable"),
    ],
)
def test_an_invalid_s3_item_is_refused_at_submission(
    on_s3: httpx2.Client, url: str, says: str
) -> None:
    answer = on_s3.post("/jobs", json={"urls": [url]})
    assert (answer.status_code, answer.json()["code"]) == (422, "items_refused")
    assert says in answer.json()["problems"][0]["detail"]


def test_without_the_setting_no_bucket_is_allowed_and_no_webhook_goes_to_s3(
    client: httpx2.Client, on_s3: httpx2.Client
) -> None:
    answer = client.post("/jobs", json={"urls": [f"s3://{BUCKET}/a.jpg"]})
    assert "PIQUEUE_S3_FETCH_BUCKETS" in answer.json()["problems"][0]["detail"]
    hook = {"draft": True, "webhook_url": f"s3://{BUCKET}/a"}
    assert on_s3.post("/jobs", json=hook).status_code == 422


def test_results_on_s3_are_those_of_the_api_and_the_manifest_says_which(
    on_s3: httpx2.Client, s3_server: S3Server
) -> None:
    invalid = ("files", ("broken.jpg", jpeg(1)[:2000]))
    options = {"metadata": {"order": 7}, "priority": "bulk"}
    form = {"options": json.dumps(options)}
    job = on_s3.post("/jobs", files=[*files(98), invalid], data=form).json()
    job = wait_done(on_s3, job)
    assert job["status"] == "partially_succeeded"
    lines = on_s3.get(job["links"]["results"], params={"format": "jsonl"}).text.splitlines()
    page = parts_of(on_s3, job, limit=5)
    rest = parts_of(on_s3, job, cursor=page["next_cursor"])
    assert rest["next_cursor"] is None
    listed = page["parts"] + rest["parts"]
    assert [part["key"] for part in listed] == [f"part-{at:05d}.jsonl" for at in range(13)]

    # Anyone who has the URL may read it: no credentials are sent.
    manifest = httpx2.get(page["manifest_url"], timeout=60).raise_for_status().json()
    bodies = [httpx2.get(part["url"], timeout=60).raise_for_status().content for part in listed]
    assert [json.loads(line) for body in bodies for line in body.splitlines()] == [
        json.loads(line) for line in lines
    ]
    assert manifest["id"] == job["id"]
    assert manifest["model"] | job["model"] == manifest["model"]
    assert manifest["model"]["labels"] == ["beach", "city", "sunset", "trees"]
    for name in ("status", "counts", "failures", "metadata", "finished_at"):
        assert manifest[name] == job[name]
    first = 0
    for part, entry, body in zip(manifest["parts"], listed, bodies, strict=True):
        assert part["key"] == entry["key"]
        assert part["items"] == entry["items"] == len(body.splitlines())
        assert (part["first_index"], part["last_index"]) == (first, first + part["items"] - 1)
        assert (part["bytes"], part["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        first += part["items"]
    assert first == 99

    # Of the uploads, the one without scores is kept, to be tried again.
    (kept,) = until(lambda: one_of(s3_server.keys(f"jobs/{job['id']}/in/")))
    assert kept == f"jobs/{job['id']}/in/broken.jpg"
    retry = on_s3.post(f"{job['links']['self']}/retry").json()
    assert wait_done(on_s3, retry)["failures"] == job["failures"]

    assert on_s3.delete(job["links"]["self"]).status_code == 204
    assert s3_server.keys(f"jobs/{job['id']}/") == []


def one_of(keys: list[str]) -> list[str] | None:
    return keys if len(keys) == 1 else None


def test_the_documented_way_to_read_the_parts_works(
    on_s3: httpx2.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    job = on_s3.post("/jobs", files=files(3)).raise_for_status().json()
    parts_of(on_s3, wait_done(on_s3, job))
    [code] = runnable("docs/s3.md")
    exec(code.text, {"piqueue": str(on_s3.base_url).rstrip("/"), "job_id": job["id"]})
    scores = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(one) for one in scores] == [{"beach", "city", "sunset", "trees"}] * 3


def test_a_picture_scored_through_scorefile_leaves_nothing_on_s3(
    on_s3: httpx2.Client, s3_server: S3Server
) -> None:
    before = set(s3_server.keys(""))
    answer = on_s3.post("/scorefile/", files={"file": ("a.jpg", jpeg(3))})
    assert list(answer.raise_for_status().json()) == ["beach", "city", "sunset", "trees"]
    known = {job["id"] for job in on_s3.get("/jobs", params={"limit": 1000}).json()["jobs"]}

    def added() -> set[str]:
        return {key.split("/")[1] for key in set(s3_server.keys("")) - before}

    # The worker deletes the picture after the commit of its scores.
    until(lambda: added() <= known)  # of jobs before it, if anything


def test_a_running_job_has_no_parts_yet_and_a_job_without_s3_has_none(
    on_s3: httpx2.Client, client: httpx2.Client
) -> None:
    for asked in (on_s3, client):
        draft = asked.post("/jobs", json={"draft": True}).json()
        answer = asked.get(f"{draft['links']['results']}/parts")
        assert (answer.status_code, answer.json()["code"]) == (404, "parts_not_found")
        assert "PIQUEUE_STORAGE_URL" in answer.json()["detail"]

    async def hang(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with Site({"/a.jpg": hang}) as site:
        job = on_s3.post("/jobs", json={"urls": [site.url("/a.jpg")]}).json()
        answer = on_s3.get(f"{job['links']['results']}/parts")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_done")


def test_no_log_and_no_response_contains_a_secret(on_s3: httpx2.Client, folder: Path) -> None:
    job = wait_done(on_s3, on_s3.post("/jobs", files=files(1)).json())
    parts_of(on_s3, job)
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    assert "manifest_written" in logs
    for secret in (PASSWORD, "X-Amz-", "Signature"):
        assert secret not in logs
        assert secret not in on_s3.get(job["links"]["self"]).text


def test_while_s3_is_away_work_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    for name in ("s3", "stack"):
        (tmp_path / name).mkdir()
    server, count = S3Server(tmp_path / "s3"), 96
    urls = [server.put(f"in/{index}.jpg", jpeg(index)) for index in range(count)]
    log = tmp_path / "stack" / "worker-1.log"
    try:
        with (
            Stack(tmp_path / "stack", env=env(server)) as running,
            httpx2.Client(base_url=running.url, timeout=90) as client,
        ):
            # Stopped, the worker cannot be done with both jobs before S3 goes away.
            (worker,) = running.workers
            listed = client.post("/jobs", json={"urls": urls * 4}).json()
            until(lambda: client.get(listed["links"]["self"]).json()["counts"]["succeeded"])
            os.kill(worker, signal.SIGSTOP)
            uploaded = client.post("/jobs", files=files(count)).json()
            server.stop()
            os.kill(worker, signal.SIGCONT)
            back_at = time.monotonic() + OUTAGE_S
            until(
                lambda: time.monotonic() > back_at and log.read_text().count("chunk_deferred") >= 3
            )
            waiting = [client.get(job["links"]["self"]).json() for job in (uploaded, listed)]
            refused = client.post("/jobs", files=files(1))
            taken = client.post("/jobs", json={"urls": urls[:1]})
            server.start()
            done = [wait_done(client, job) for job in (uploaded, listed, taken.json())]
            results = [all_results(client, job) for job in (uploaded, listed)]
            pages = [parts_of(client, job) for job in (uploaded, listed)]
    finally:
        server.stop()
    for job in waiting:
        assert not job["done"], "the job was over before S3 went away"
        assert job["failures"] == {}
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert taken.status_code == 202, "nothing of it needs S3 yet"
    assert [job["status"] for job in done] == ["succeeded"] * 3, [job["failures"] for job in done]
    hashes = [hashlib.sha256(jpeg(index)).hexdigest() for index in range(count)]
    for found, page, wanted in zip(results, pages, (hashes, hashes * 4), strict=True):
        assert [result["index"] for result in found] == list(range(len(wanted)))
        assert [result["image"]["sha256"] for result in found] == wanted
        assert sum(part["items"] for part in page["parts"]) == len(wanted)
