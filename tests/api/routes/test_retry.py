"""Retrying failed items over HTTP, and reading a job and its retries as one."""

import asyncio
import csv
import hashlib
import io
import json
import re
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet
import pytest
from aiohttp import web
from redis import Redis

from piqueue import cli
from scripts.local.stack import Stack
from tests.api.polling import until_cached, wait_done
from tests.api.stored_jobs import (
    MODEL,
    NOT_FOUND,
    TIMEOUT,
    HeldJobs,
    ledger,
    rejected,
    scored,
    store_job,
)
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from worker.jobs.items import ItemResult, ItemSpec, Rejection
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.idempotency import IdempotencyKeys
from worker.jobs.record import CsvShape, Job


@pytest.fixture(scope="module")
def store(stack: Stack) -> Iterator[HeldJobs]:
    with ledger(stack.redis_url) as opened:
        yield opened


class Flaky:
    """Answers with pictures, but 500 (or 404) where told so; while it is not `open`, not at all."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.site = Site({f"/{index}.jpg": self.answer for index in range(40)})

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        await self.open.wait()
        if status := self.status.get(request.path):
            return web.Response(status=status)
        return web.Response(body=jpeg(int(request.path[1:-4])))


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    made = Flaky()
    with made.site:
        yield made


def retry(client: httpx2.Client, job: dict[str, Any], **body: str) -> dict[str, Any]:
    answer = client.post(f"{job['links']['self']}/retry", json=body)
    assert answer.status_code == 202, answer.text
    new: dict[str, Any] = answer.json()
    assert new["parent_job"] == job["id"]
    return wait_done(client, new)


def merged(client: httpx2.Client, job_id: str, **params: object) -> list[dict[str, Any]]:
    """Read all pages of a retry together with its parents."""
    items: list[dict[str, Any]] = []
    while True:
        query: Any = {"merge": "parents", **params}
        answer = client.get(f"/jobs/{job_id}/results", params=query)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if "next_cursor" not in answer.json():
            return items
        params["cursor"] = answer.json()["next_cursor"]


def test_a_retry_holds_the_failed_items_and_merges_with_its_parent(
    client: httpx2.Client, flaky: Flaky
) -> None:
    # No 503, which would pause the requests to this host and could fail those that wait.
    failing = {f"/{index}.jpg": 500 if index % 2 else 404 for index in range(0, 40, 3)}
    flaky.status = dict(failing)
    rows = [["sku", "url", "price"]]
    rows += [[f"s{at}", flaky.site.url(f"/{at}.jpg"), f"{at}.50"] for at in range(40)]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    answer = client.post(
        "/jobs",
        content=text.getvalue().encode(),
        params={"id_column": "sku", "name": "prices", "metadata": '{"a": 1}'},
        headers={"content-type": "text/csv"},
    )
    parent = wait_done(client, answer.json())
    assert parent["status"] == "partially_succeeded"
    flaky.status = {"/3.jpg": 500, "/6.jpg": 404}

    flaky.site.call(flaky.open.clear)
    answer = client.post(f"{parent['links']['self']}/retry")
    assert answer.status_code == 202
    first = answer.json()
    assert answer.headers["location"] == first["links"]["self"]
    assert int(answer.headers["retry-after"]) >= 1
    flaky.site.call(flaky.open.set)
    first = wait_done(client, first)
    assert (first["parent_job"], first["model"]) == (parent["id"], parent["model"])
    assert (first["name"], first["metadata"]) == ("prices", {"a": 1})
    assert first["priority"] == "interactive"
    assert [item["id"] for item in first["results"]] == [f"s{at}" for at in range(0, 40, 3)]
    assert [item["index"] for item in first["results"]] == list(range(14))
    assert [item["columns"]["price"] for item in first["results"]] == [
        f"{at}.50" for at in range(0, 40, 3)
    ]

    both = merged(client, first["id"], limit=7)
    assert [item["index"] for item in both] == list(range(40))
    assert [item["id"] for item in both] == [row[0] for row in rows[1:]]
    assert {item["id"] for item in both if item["error"]} == {"s3", "s6"}
    for index, item in enumerate(both):
        if item["image"]:
            assert item["image"]["sha256"] == hashlib.sha256(jpeg(index)).hexdigest()

    flaky.status = {}
    second = retry(client, first, only="retryable")
    assert [item["id"] for item in second["results"]] == ["s3"]
    whole = merged(client, second["id"])
    assert [item["index"] for item in whole] == list(range(40))
    assert [item["id"] for item in whole if item["error"]] == ["s6"]
    assert [item["id"] for item in merged(client, second["id"], status="failed")] == ["s6"]
    query = {"merge": "parents", "format": "csv"}
    table = client.get(second["links"]["results"], params=query).text
    cells = list(csv.reader(io.StringIO(table, newline="")))
    assert [row[:3] for row in cells] == rows
    assert [row[3] for row in cells].count("failed") == 1


def test_a_retry_has_the_options_its_parent_was_submitted_with(
    client: httpx2.Client, store: HeldJobs, flaky: Flaky
) -> None:
    flaky.status = {f"/{index}.jpg": 500 for index in range(20)}
    options = {
        "name": "prices",
        "metadata": {"order": 7},
        "priority": "bulk",
        "max_failures": "50%",
        "expires_in_s": 3600,
        "use_cache": True,
        "webhook_url": flaky.site.url("/hook"),
    }
    urls = [flaky.site.url(f"/{index}.jpg") for index in range(40)]
    parent = wait_done(client, client.post("/jobs", json={"urls": urls, **options}).json())
    assert parent["status"] == "partially_succeeded", "half of them may fail"
    job = retry(client, parent)
    assert (job["status"], job["counts"]["total"]) == ("failed", 20)
    assert "failure_budget" in job["error"], "half of the new job's items"
    flaky.status = {}
    job = retry(client, job)
    assert (job["name"], job["metadata"], job["priority"]) == ("prices", {"order": 7}, "bulk")
    created, expires = (datetime.fromisoformat(job[f"{at}_at"]) for at in ("created", "expires"))
    assert (expires - created).total_seconds() == pytest.approx(3600, abs=1)
    assert store.job(job["id"]).webhook_url == options["webhook_url"]
    assert store.options(job["id"]) == {**options, "model": "scenes@5"}
    # Those were scored just now; and more, if the job in between was still scoring when it was over
    # its budget.
    until_cached(lambda: retry(client, parent), job["counts"]["total"])


def test_a_draft_is_neither_retried_nor_rescored(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    for action, body in (("retry", {}), ("rescore", {"model": "scenes"})):
        answer = client.post(f"{draft}/{action}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_done")
        says = f"was never submitted: submit it, then {action} it once it is done"
        assert says in answer.json()["detail"]
    client.delete(draft).raise_for_status()


def test_a_drafted_job_is_retried_with_its_options(client: httpx2.Client, store: HeldJobs) -> None:
    options = {"name": "folder", "expires_in_s": 3600, "priority": "bulk"}
    draft = client.post("/jobs", json={"draft": True, **options}).json()
    files = [("files", ("cut.jpg", jpeg(1)[:2000]))]
    client.post(f"{draft['links']['self']}/items", files=files).raise_for_status()
    job = wait_done(client, client.post(f"{draft['links']['self']}/submit").json())
    again = retry(client, job)
    assert (again["name"], again["priority"]) == ("folder", "bulk")
    assert store.options(again["id"])["expires_in_s"] == 3600


def test_a_retry_sent_again_under_its_key_is_the_same_job(
    client: httpx2.Client, store: HeldJobs
) -> None:
    def failed_job() -> Job:
        return store_job(store, 3, lambda at: ItemSpec(str(at), "https://h/"), lambda _: rejected())

    parent, other = failed_job(), failed_job()
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first, again, default = (
        client.post(f"/jobs/{parent.id}/retry", json=body, headers=headers)
        for body in ({"only": "failed"}, {"only": "failed"}, None)
    )
    assert [answer.status_code for answer in (first, again, default)] == [202] * 3
    assert first.json()["id"] == again.json()["id"] == default.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    retryable = client.post(f"/jobs/{parent.id}/retry", json={"only": "retryable"}, headers=headers)
    of_other = client.post(f"/jobs/{other.id}/retry", headers=headers)
    submission = client.post("/jobs", json={"urls": ["https://h/"]}, headers=headers)
    for answer in (retryable, of_other, submission):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert (
        client.post(f"/jobs/{parent.id}/retry", headers={"Idempotency-Key": ""}).status_code == 422
    )


def test_a_retry_in_flight_is_not_repeated_and_a_refused_one_frees_its_key(
    stack: Stack, client: httpx2.Client, store: HeldJobs
) -> None:
    good = store_job(store, 1, lambda _: ItemSpec("a", "https://h/"), lambda _: scored(0, 0, 0, 0))
    bad = store_job(store, 1, lambda _: ItemSpec("a", "https://h/"), lambda _: rejected())
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    assert client.post(f"/jobs/{good.id}/retry", headers=headers).status_code == 422
    with connect(stack.redis_url) as redis:
        keys = IdempotencyKeys(redis, ttl_s=60)
        assert keys.begin(ANYONE, headers["Idempotency-Key"]) is None
        answer = client.post(f"/jobs/{bad.id}/retry", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_flight")
        keys.release(ANYONE, headers["Idempotency-Key"])
    assert client.post(f"/jobs/{bad.id}/retry", headers=headers).status_code == 202


def test_uploads_are_retried_from_their_stored_bytes(client: httpx2.Client) -> None:
    cut = {f"cut-{seed}.jpg": jpeg(seed)[:2000] for seed in range(3)}
    pictures = {"good.jpg": jpeg(9), **cut}
    files = [("files", named) for named in pictures.items()]
    parent = wait_done(client, client.post("/jobs", files=files).json())
    assert parent["counts"]["failed"] == 3
    first = retry(client, parent)
    assert [item["id"] for item in first["results"]] == list(cut)
    for item in first["results"]:
        assert item["error"]["code"] == "truncated"
        assert item["image"]["sha256"] == hashlib.sha256(cut[item["id"]]).hexdigest()
    second = retry(client, first)
    assert second["counts"]["failed"] == 3
    assert [item["id"] for item in merged(client, second["id"])] == list(pictures)


@pytest.mark.parametrize("drafted", [False, True])
def test_the_bytes_of_a_failed_upload_are_kept_as_long_as_its_job(
    client: httpx2.Client, stack: Stack, drafted: bool
) -> None:
    files = [("files", ("cut.jpg", jpeg(1)[:2000]))]
    month_s = 30 * 86400
    options = {"expires_in_s": month_s}
    if drafted:
        draft = client.post("/jobs", json={"draft": True, **options}).json()["links"]["self"]
        assert client.post(f"{draft}/items", files=files).status_code == 200
        job = client.post(f"{draft}/submit").json()
    else:
        job = client.post("/jobs", files=files, data={"options": json.dumps(options)}).json()
    wait_done(client, job)
    with Redis.from_url(stack.redis_url) as redis:
        due: Any = redis.zscore("piqueue:expiries", f"expire {job['id']} anyone")
        if drafted:  # they are files
            due = redis.zscore("piqueue:object-expiry", job["id"])
        else:
            assert redis.ttl(f"piqueue:{{{job['id']}}}:blobs") == -1, "they go with the job"
    assert month_s - 120 < due / 1000 - time.time() <= month_s


def test_uploads_whose_bytes_are_gone_are_refused_by_row(
    client: httpx2.Client, store: HeldJobs
) -> None:
    parent = store_job(
        store,
        4,
        lambda index: ItemSpec(f"{index}.jpg", filename=f"{index}.jpg"),
        lambda index: scored(0, 0, 0, 0) if index == 1 else rejected(),
    )
    answer = client.post(f"/jobs/{parent.id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (422, "items_refused")
    problems = answer.json()["problems"]
    assert [(found["id"], found["detail"]) for found in problems] == [
        (f"{index}.jpg", f"the bytes of upload {index} are gone: submit the file again")
        for index in (0, 2, 3)
    ]


def test_only_a_job_that_is_done_is_retried(client: httpx2.Client) -> None:
    held = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(status=404)

    with Site({"/slow.jpg": hold}) as site:
        job = client.post("/jobs", json={"urls": [site.url("/slow.jpg")]}).json()
        answer = client.post(f"{job['links']['self']}/retry")
        site.call(held.set)
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_done")
        wait_done(client, job)
    draft = client.post("/jobs", json={"draft": True}).json()
    assert client.post(f"{draft['links']['self']}/retry").status_code == 409


@pytest.mark.parametrize(
    ("kept", "only", "says"),
    [
        (None, "failed", "no failed items"),
        (None, "retryable", "no retryable items"),
        (NOT_FOUND, "retryable", "no retryable items"),
    ],
)
def test_a_retry_of_nothing_is_refused(
    client: httpx2.Client, store: HeldJobs, kept: Rejection | None, only: str, says: str
) -> None:
    job = store_job(
        store,
        3,
        lambda index: ItemSpec(str(index), "https://h/"),
        lambda _: rejected(kept) if kept else scored(0, 0, 0, 0),
    )
    answer = client.post(f"/jobs/{job.id}/retry", json={"only": only})
    assert (answer.status_code, answer.json()["code"]) == (422, "job_refused")
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("action", ["retry", "rescore"])
@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ('{"only": "some"}', 422, "only: "),
        ('{"items": []}', 422, "items"),
        ('{"only": "failed", "only": "retryable"}', 422, "the name 'only' twice"),
        ("[]", 422, "object"),
        ("1", 422, "object"),
        ("{", 400, "the body is not JSON"),
        ("<html>", 400, "HTML"),
    ],
)
def test_an_invalid_body_is_refused(
    client: httpx2.Client, store: HeldJobs, action: str, body: str, code: int, says: str
) -> None:
    job = store_job(store, 1, lambda _: ItemSpec("a", "https://h/"), lambda _: rejected())
    headers = {"Content-Type": "application/json"}
    answer = client.post(f"/jobs/{job.id}/{action}", content=body, headers=headers)
    assert answer.status_code == code, answer.text
    assert says in answer.json()["detail"]
    other = client.post(f"/jobs/{job.id}/{action}", content="only=failed")
    assert other.status_code == 415, other.text
    assert other.json()["detail"] == "the content type is missing: send application/json"


def test_a_job_is_not_retried_with_a_model_that_was_replaced(
    client: httpx2.Client, store: HeldJobs
) -> None:
    old = MODEL.model_copy(update={"sha256": "0" * 64})
    job = store_job(
        store, 1, lambda _: ItemSpec("a", "https://h/"), lambda _: rejected(), model=old
    )
    answer = client.post(f"/jobs/{job.id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (422, "model_not_found")
    assert "scenes@5" in answer.json()["detail"]


def test_an_unknown_job_is_not_retried(client: httpx2.Client) -> None:
    assert client.post("/jobs/job_x/retry").status_code == 404


# A line of long jobs, written into the ledger: of 3,000 items every third failed, of these every
# second failed again, of these every fifth a third time.


COUNT = 3000
SHAPE = CsvShape(("id", "url"), "url", "id")


def outcome(index: int) -> tuple[int, bool]:
    """Give the attempt that decided an item, and whether that succeeded."""
    if index % 3:
        return 0, True
    if index % 2:
        return 1, True
    return 2, bool(index % 5)


def attempt_result(index: int, attempt: int) -> ItemResult:
    last, succeeded = outcome(index)
    good = attempt == last and succeeded
    return scored(index / COUNT, attempt / 4, 0, 0) if good else rejected(TIMEOUT)


@pytest.fixture(scope="module")
def line(store: HeldJobs) -> list[Job]:
    jobs: list[Job] = []
    before = list(range(COUNT))
    for attempt in range(3):
        items = [index for index in range(COUNT) if outcome(index)[0] >= attempt]
        places = [before.index(index) for index in items]

        def spec(at: int, items: list[int] = items, places: list[int] = places) -> ItemSpec:
            parent_index = places[at] if jobs else None
            return ItemSpec(str(items[at]), "https://h/", parent_index=parent_index)

        def result(at: int, items: list[int] = items, attempt: int = attempt) -> ItemResult:
            return attempt_result(items[at], attempt)

        parent = jobs[-1].id if jobs else None
        jobs.append(
            store_job(store, len(items), spec, result, csv=SHAPE, parent_job=parent, chunk_items=8)
        )
        before = items
    return jobs


def deciding(item: dict[str, Any]) -> tuple[int, int | None]:
    """Give the index of an item, and the attempt its scores are of."""
    return item["index"], item["scores"] and round(item["scores"]["city"] * 4)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_each_item_of_a_chain_of_retries_has_its_newest_result(
    client: httpx2.Client, line: list[Job], length: int
) -> None:
    found = merged(client, line[length - 1].id, limit=271)
    wanted = []
    for index in range(COUNT):
        last, succeeded = outcome(index)
        wanted.append((index, last if succeeded and last < length else None))
    assert [deciding(item) for item in found] == wanted
    assert [item["id"] for item in found] == [str(index) for index in range(COUNT)]


@pytest.mark.parametrize(
    "params",
    [
        {"status": "failed"},
        {"status": "succeeded", "top_k": 1},
        {"label": "city", "threshold": 0.5},
    ],
    ids=str,
)
def test_filters_and_formats_apply_to_a_chain_of_retries(
    client: httpx2.Client, line: list[Job], params: dict[str, Any]
) -> None:
    wanted = []
    for index in range(COUNT):
        last, succeeded = outcome(index)
        kept = {
            "failed": not succeeded,
            "succeeded": succeeded,
            None: succeeded and last == 2,
        }[params.get("status")]
        wanted += [str(index)] if kept else []
    assert len(wanted) > 50
    found = merged(client, line[2].id, limit=37, **params)
    assert [item["id"] for item in found] == wanted
    answers = {
        form: client.get(
            f"/jobs/{line[2].id}/results", params={"merge": "parents", "format": form, **params}
        )
        for form in ("jsonl", "csv", "parquet")
    }
    assert [json.loads(text) for text in answers["jsonl"].text.splitlines()] == found
    rows = list(csv.reader(io.StringIO(answers["csv"].text, newline="")))
    assert [row[0] for row in rows[1:]] == wanted
    table = pyarrow.parquet.read_table(io.BytesIO(answers["parquet"].content))
    assert table.column("id").to_pylist() == wanted


def test_a_report_of_a_chain_of_retries_counts_each_item_once(
    client: httpx2.Client, line: list[Job]
) -> None:
    good = sum(outcome(index)[1] for index in range(COUNT))
    answer = client.get(f"/jobs/{line[2].id}/report", params={"merge": "parents"})
    text = " ".join(re.sub("<[^>]*>", " ", answer.text).split())
    assert f"{COUNT:,} pictures · model scenes@5" in text
    assert "retried 2 times" in text
    assert f"{good:,} scored {COUNT - good:,} failed" in text
    assert f"{COUNT - good:,} × " in text
    assert all(job.id in answer.text for job in line)
    alone = client.get(f"/jobs/{line[2].id}/report")
    assert line[0].id not in alone.text
    assert alone.headers["etag"] != answer.headers["etag"]


def test_the_report_of_a_retry_and_its_parent_shows_the_pictures_of_both(
    client: httpx2.Client, flaky: Flaky, tmp_path: Path
) -> None:
    flaky.status = {"/1.jpg": 500, "/3.jpg": 500}
    urls = [flaky.site.url(f"/{index}.jpg") for index in range(4)]
    body = {"urls": urls, "thumbnails": True}
    parent = wait_done(client, client.post("/jobs", json=body).json())
    flaky.status = {"/3.jpg": 404}
    retry = wait_done(client, client.post(f"/jobs/{parent['id']}/retry").json())

    def pictures(job: dict[str, Any], *options: str) -> set[str]:
        """The thumbnails in the report that the command writes."""
        output = tmp_path / "report.html"
        arguments = ["report", job["id"], "--url", str(client.base_url), "-o", str(output)]
        assert cli.main([*arguments, *options]) == 0
        return set(re.findall(r"data:image/webp;base64,[^\"]+", output.read_text()))

    of_parent, of_retry = pictures(parent), pictures(retry)
    assert (len(of_parent), len(of_retry)) == (2, 1)
    assert pictures(retry, "--merge") == of_parent | of_retry
    client.delete(f"/jobs/{parent['id']}")
    answer = client.get(f"/jobs/{retry['id']}/report", params={"merge": "parents"})
    assert (answer.status_code, answer.json()["code"]) == (409, "parent_gone")


def test_a_retry_is_merged_while_it_runs(client: httpx2.Client, flaky: Flaky) -> None:
    flaky.status = {f"/{index}.jpg": 500 for index in range(20)}  # a 503 also pauses the host
    urls = [flaky.site.url(f"/{index}.jpg") for index in range(40)]
    parent = wait_done(client, client.post("/jobs", json={"urls": urls}).json())
    flaky.status = {}
    job = client.post(f"{parent['links']['self']}/retry").json()
    while True:
        done = client.get(job["links"]["self"]).json()["done"]
        found = merged(client, job["id"], limit=9)
        assert [item["index"] for item in found] == list(range(40))
        if done:
            break
    assert not [item for item in found if item["error"]]


def test_a_retry_whose_parent_is_erased_is_read_alone(
    client: httpx2.Client, store: HeldJobs
) -> None:
    parent = store_job(store, 2, lambda at: ItemSpec(str(at), "https://h/"), lambda _: rejected())
    job = store_job(
        store,
        2,
        lambda at: ItemSpec(str(at), "https://h/", parent_index=at),
        lambda _: scored(1, 1, 1, 1),
        parent_job=parent.id,
    )
    assert client.delete(f"/jobs/{parent.id}").status_code == 204
    for form in ("json", "csv"):
        params = {"merge": "parents", "format": form}
        answer = client.get(f"/jobs/{job.id}/results", params=params)
        assert (answer.status_code, answer.json()["code"]) == (409, "parent_gone")
        assert parent.id in answer.json()["detail"]
    assert len(client.get(f"/jobs/{job.id}/results").json()["items"]) == 2
