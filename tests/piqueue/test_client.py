"""The client, on a running Piqueue; and on a server that misbehaves as asked."""

import asyncio
import csv
import io
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from piqueue import Client, Item, JobOptions, PiqueueApiError
from scripts.local.stack import ROOT, Stack
from tests.pictures import jpeg
from tests.worker.fetching.site import Answer, Site
from worker.jobs.settings import load_settings


@pytest.fixture
def api(stack: Stack) -> Iterator[Client]:
    """Give a client of the running API."""
    with Client(stack.url) as client:
        yield client


@pytest.fixture(scope="module")
def photos() -> Iterator[Site]:
    """Serve /0.jpg to /9.jpg."""

    def answer(seed: int) -> Answer:
        picture = jpeg(seed)

        async def respond(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=picture)

        return respond

    with Site({f"/{seed}.jpg": answer(seed) for seed in range(10)}) as site:
        yield site


def test_urls_are_submitted_with_options_and_read_back(api: Client, photos: Site) -> None:
    urls = [photos.url(f"/{at}.jpg") for at in range(3)]
    options = JobOptions(name="März", metadata={"order": [1, 2]}, max_failures="50%")
    job = api.wait(api.submit_urls(urls, options).id, timeout_s=60)
    assert (job.status, job.name, job.metadata) == ("succeeded", "März", {"order": [1, 2]})
    results = list(api.results(job.id))
    assert [result.source.url for result in results] == urls
    assert all(result.scores and set(result.scores) >= {"beach", "city"} for result in results)


def test_items_keep_their_ids_and_columns(api: Client, photos: Site) -> None:
    items = [
        Item(id=f"sku-{at}", url=photos.url(f"/{at}.jpg"), columns={"price": f"{at},5"})
        for at in range(3)
    ]
    job = api.wait(api.submit_items(items).id, timeout_s=60)
    assert [(result.id, result.columns) for result in api.results(job.id)] == [
        (item.id, item.columns) for item in items
    ]


def test_a_csv_is_submitted_by_path_and_downloaded_as_a_table(
    api: Client, photos: Site, tmp_path: Path
) -> None:
    table = tmp_path / "photos.csv"
    table.write_text(f"sku,picture\na,{photos.url('/1.jpg')}\nb,{photos.url('/none.jpg')}\n")
    job = api.submit_csv(table, url_column="picture", id_column="sku")
    assert api.wait(job.id, timeout_s=60).status == "partially_succeeded"
    target = io.BytesIO(b"what was there before, and is longer than the results " * 100)
    api.download(job.id, target, "csv")
    rows = list(csv.DictReader(io.StringIO(target.getvalue().decode())))
    assert [(row["sku"], row["picture"], row["status"]) for row in rows] == [
        ("a", photos.url("/1.jpg"), "succeeded"),
        ("b", photos.url("/none.jpg"), "failed"),
    ]
    failed = list(api.results(job.id, status="failed"))
    assert [(result.id, result.error and result.error.code) for result in failed] == [
        ("b", "not_an_image")
    ]


def test_results_come_from_many_pages(
    api: Client, photos: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piqueue.requests.PAGE_ITEMS", 7)
    job = api.submit_urls(photos.url(f"/{at % 10}.jpg") for at in range(30))
    api.wait(job.id, timeout_s=60)
    assert [result.index for result in api.results(job.id)] == list(range(30))
    best = list(api.results(job.id, top_k=1))
    assert [len(result.scores or ()) for result in best] == [1] * 30


def test_files_are_submitted_from_disk_and_memory(api: Client, tmp_path: Path) -> None:
    on_disk = tmp_path / "a.jpg"
    on_disk.write_bytes(jpeg(1))
    job = api.submit_files({"x/1.jpg": on_disk, "y ü.jpg": jpeg(2)}, JobOptions(name="two"))
    assert api.wait(job.id, timeout_s=60).name == "two"
    assert [result.id for result in api.results(job.id)] == ["x/1.jpg", "y ü.jpg"]


def test_a_draft_takes_items_once_lists_them_and_is_submitted_once(
    api: Client, photos: Site
) -> None:
    draft = api.open_draft(JobOptions(name="folder"))
    for _ in range(2):
        api.add_files(draft.id, {f"{seed}.jpg": jpeg(seed) for seed in range(3)})
        api.add_items(draft.id, [Item(id="web", url=photos.url("/1.jpg"))])
    assert list(api.draft_ids(draft.id)) == ["0.jpg", "1.jpg", "2.jpg", "web"]
    job = api.submit_draft(draft.id)
    assert (job.id, job.counts.total, job.name) == (draft.id, 4, "folder")
    assert api.submit_draft(draft.id).id == draft.id, "as when the first answer was lost"
    assert api.wait(job.id, timeout_s=60).status == "succeeded"
    with pytest.raises(PiqueueApiError, match="is not a draft") as refusal:
        list(api.draft_ids(job.id))
    assert refusal.value.code == "job_not_draft"


def test_the_items_of_a_long_draft_come_in_pages(api: Client) -> None:
    draft = api.open_draft()
    ids = [f"item-{at}" for at in range(250)]
    api.add_items(draft.id, [Item(id=item_id, url="http://h/") for item_id in ids])
    assert list(api.draft_ids(draft.id)) == ids
    api.delete(draft.id)


def test_refused_rows_are_told_apart(api: Client) -> None:
    with pytest.raises(PiqueueApiError) as refusal:
        api.submit_urls(["http://h/", "ftp://h/", *["x"] * 150])
    error = refusal.value
    assert (error.status, error.code, error.problem_count) == (422, "items_refused", 151)
    assert len(error.problems) == 100
    assert (error.problems[0]["index"], error.problems[0]["id"]) == (1, "1")
    assert "http://" in error.problems[0]["detail"]


def test_jobs_are_listed_cancelled_retried_and_deleted(api: Client) -> None:
    closed = "http://127.0.0.1:9/"
    job = api.wait(api.submit_urls([closed, closed]).id, timeout_s=60)
    assert (job.status, job.failures) == ("failed", {"fetch_connection": 2})
    again = api.retry(job.id, "retryable")
    assert again.parent_job == job.id
    api.wait(again.id, timeout_s=60)
    assert [result.index for result in api.results(again.id, merge="parents")] == [0, 1]
    many = api.submit_urls([closed] * 30_000)  # more than are tried before it is cancelled
    assert api.cancel(many.id).status in ("cancelling", "cancelled")
    assert api.wait(many.id, timeout_s=60).status == "cancelled"
    draft = api.open_draft()
    listed = [found.id for found in api.jobs()]
    assert [listed.index(one.id) for one in (draft, many, again, job)] == [0, 1, 2, 3]
    assert {found.status for found in api.jobs("draft")} == {"draft"}
    api.delete(draft.id)
    with pytest.raises(PiqueueApiError, match="no job") as gone:
        api.job(draft.id)
    assert (gone.value.status, gone.value.code) == (404, "job_not_found")


def test_waiting_has_an_end(api: Client) -> None:
    draft = api.open_draft()
    with pytest.raises(TimeoutError, match=draft.id):
        api.wait(draft.id, timeout_s=0.1)


def misbehaving(*turns: Answer) -> Site:
    """A server that answers each request to /jobs with the next of `turns`, the last for ever."""
    left = list(turns)

    async def next_turn(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return Site({"/jobs": next_turn, "/jobs/job_1/retry": next_turn})


def says(status: int, body: str, **headers: str) -> Answer:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, headers=named)

    return answer


def problem(status: int, code: str, **headers: str) -> Answer:
    body = {"type": "t", "title": "t", "status": status, "code": code, "detail": f"it is {code}"}
    return says(status, json.dumps(body), **headers)


async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport
    request.transport.close()
    await asyncio.sleep(0)
    return web.Response()


@pytest.fixture(scope="module")
def accepted(stack: Stack) -> Answer:
    """Answer as the API answered a submission."""
    with Client(stack.url) as client:
        return says(202, msgspec.json.encode(client.open_draft()).decode())


@pytest.mark.parametrize(
    "failure",
    [
        problem(429, "over_quota", Retry_After="0"),
        problem(503, "queue_full", Retry_After="0"),
        problem(409, "idempotency_in_flight"),
        says(502, "<h1>Bad Gateway</h1>"),
        hang_up,
    ],
    ids=["429", "503", "in-flight", "proxy", "hang-up"],
)
def test_a_submission_is_sent_again_whole_under_the_same_key(
    failure: Answer, accepted: Answer
) -> None:
    bodies: list[bytes] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        bodies.append(await request.read())
        return await failure(request)

    async def note_and_accept(request: web.BaseRequest) -> web.StreamResponse:
        bodies.append(await request.read())
        return await accepted(request)

    heard: list[PiqueueApiError] = []
    with misbehaving(note, note, note_and_accept) as site:
        with Client(site.url(""), on_retry=lambda error, _: heard.append(error)) as client:
            client.submit_csv(lambda: iter([b"url\n", b"http://h/\n"]))
        keys = {seen.headers["Idempotency-Key"] for seen in site.requests}
    assert bodies == [b"url\nhttp://h/\n"] * 3
    assert len(keys) == 1
    assert uuid.UUID(keys.pop())
    assert len(heard) == 2


def test_retry_after_is_waited_for(accepted: Answer) -> None:
    with misbehaving(problem(503, "queue_full", Retry_After="1"), accepted) as site:
        started = time.monotonic()
        with Client(site.url("")) as client:
            client.submit_urls(["http://h/"])
    assert time.monotonic() - started >= 1


def test_a_wait_longer_than_patience_fails_at_once() -> None:
    with misbehaving(problem(503, "queue_full", Retry_After="300")) as site:
        with Client(site.url(""), patience_s=60) as client, pytest.raises(PiqueueApiError) as full:
            client.submit_urls(["http://h/"])
        assert (full.value.code, full.value.retry_after_s) == ("queue_full", 300)
        assert len(site.requests) == 1


def test_a_retry_is_sent_again_under_the_same_key(accepted: Answer) -> None:
    with misbehaving(hang_up, says(502, "<h1>Bad Gateway</h1>"), accepted) as site:
        with Client(site.url("")) as client:
            client.retry("job_1")
        keys = [seen.headers["Idempotency-Key"] for seen in site.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_what_is_refused_is_not_sent_again() -> None:
    with misbehaving(says(404, "no such page")) as site:
        with Client(site.url("")) as client, pytest.raises(PiqueueApiError) as refusal:
            client.submit_urls(["http://h/"])
        assert (refusal.value.status, refusal.value.code) == (404, "not_piqueue")
        assert len(site.requests) == 1


def test_an_address_that_never_answered_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piqueue.connection.FIRST_CONTACT_S", 0.5)
    with Client("http://127.0.0.1:9", patience_s=300) as client:
        assert not client.ready()
        with pytest.raises(PiqueueApiError, match=r"no answer from http://127\.0\.0\.1:9") as away:
            client.open_draft()
    assert (away.value.status, away.value.code) == (None, "unreachable")
    assert "piqueue serve" in str(away.value)


def test_address_and_key_come_from_the_environment(
    accepted: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with misbehaving(accepted) as site:
        monkeypatch.setenv("PIQUEUE_URL", site.url("/"))
        monkeypatch.setenv("PIQUEUE_API_KEY", "pq_secret")
        with Client() as client:
            client.open_draft()
        assert site.requests[0].headers["Authorization"] == "Bearer pq_secret"
    assert load_settings(), "a process of the server starts with these set"


def test_a_body_over_the_bound_is_refused_and_not_sent_again(api: Client) -> None:
    sendings = 0

    def too_much() -> Iterator[bytes]:
        nonlocal sendings
        sendings += 1
        yield b"url\n"
        for _ in range(30):
            yield (b"http://h/" + b"a" * 990 + b"\n") * 1000

    with pytest.raises(PiqueueApiError) as refusal:
        api.submit_csv(too_much)
    assert (refusal.value.status, sendings) == (413, 1)


def test_a_stranger_that_answers_is_told() -> None:
    with (
        misbehaving(says(200, "<h1>It works</h1>")) as site,
        Client(site.url("")) as client,
        pytest.raises(PiqueueApiError, match="is no Piqueue of this version"),
    ):
        client.open_draft()


def test_a_dry_run_says_what_a_table_would_come_to(api: Client, photos: Site) -> None:
    rows = f"picture\n{photos.url('/1.jpg')}\n{photos.url('/none.jpg')}\n".encode()
    before = [job.id for job in api.jobs()]
    tried = api.dry_run_csv(lambda: [rows], url_column="picture")
    assert (tried.items, tried.sampled) == (2, 2)
    assert [host.failures for host in tried.hosts] == [{"not_an_image": 1}]
    assert api.dry_run_ndjson(lambda: [b'{"url": "http://127.0.0.1:9/"}']).items == 1
    assert [job.id for job in api.jobs()] == before


def test_the_client_needs_nothing_of_the_server() -> None:
    code = (
        "import sys, piqueue.cli; "
        "print({'pydantic', 'numpy', 'pandas', 'boto3', 'api', 'worker'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout == "set()\n", answer.stderr
