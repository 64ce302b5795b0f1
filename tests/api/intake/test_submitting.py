"""Submitting over HTTP: CSV, NDJSON, drafts, idempotency keys, waiting, API keys and quotas."""

import csv
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from redis import Redis

from scripts.local.stack import ROOT, Stack, listenable_port
from scripts.local.supervised_process import SupervisedProcess
from tests.api.polling import all_results, until_cached, wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from worker.jobs.ledger.api_keys import ANYONE, KeyStore
from worker.jobs.ledger.idempotency import IdempotencyKeys


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Answer every .jpg with one picture."""
    picture = jpeg(1)

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=picture)

    with Site({f"/{index}.jpg": answer for index in range(200)}) as running:
        yield running


def as_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def post_csv(client: httpx2.Client, body: bytes, **params: str) -> httpx2.Response:
    return client.post("/jobs", content=body, params=params, headers={"content-type": "text/csv"})


def post_ndjson(client: httpx2.Client, lines: list[str]) -> httpx2.Response:
    headers = {"content-type": "application/x-ndjson"}
    return client.post("/jobs", content="\n".join(lines).encode(), headers=headers)


def test_a_csv_gives_its_other_columns_back(client: httpx2.Client, site: Site) -> None:
    rows = [["sku", "picture", "price"]]
    rows += [[f"sku-{at}", site.url(f"/{at}.jpg"), f'{at},"50\n€"'] for at in range(130)]
    answer = post_csv(client, as_csv(rows), url_column="picture", id_column="sku", name="März")
    assert answer.status_code == 202, answer.text
    job = wait_done(client, answer.json())
    assert (job["status"], job["name"], job["priority"]) == ("succeeded", "März", "bulk")
    results = all_results(client, job)
    assert [result["id"] for result in results] == [row[0] for row in rows[1:]]
    assert [result["source"]["url"] for result in results] == [row[1] for row in rows[1:]]
    assert [result["columns"] for result in results] == [{"price": row[2]} for row in rows[1:]]


@pytest.mark.parametrize(
    ("body", "params", "status", "says"),
    [
        (b"", {}, 400, "the table is empty"),
        (b"url\n", {}, 400, "a header and no rows"),
        (b"link\nhttp://h/\n", {}, 422, "?url_column="),
        (b"url\nhttp://h/\n", {"id_column": "sku"}, 422, "?id_column="),
        (b"url,url\nhttp://h/,x\n", {}, 422, "twice"),
        (b"url\nhttp://h/\n", {"colour": "red"}, 422, "colour"),
        (b"url\nhttp://h/\xff\n", {}, 400, "UTF-8"),
        (b'url\n"http://h/' + b"x" * 200_000, {}, 400, "begins at line 2"),
        (b'url,size\nhttp://h/,8\nhttp://h/,"10 inch\nhttp://h/,9\n', {}, 400, "line 3"),
        (b'url,size\nhttp://h/,"10 inch\nhttp://h/,8\nhttp://h/,"12 inch\n', {}, 400, "line 2"),
        (b'url,size\nhttp://h/,"10" inch\n', {}, 400, "line 2"),
    ],
)
def test_an_invalid_csv_is_refused_with_a_reason(
    client: httpx2.Client, body: bytes, params: dict[str, str], status: int, says: str
) -> None:
    answer = post_csv(client, body, **params)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_invalid_rows_of_a_csv_are_refused_by_number_and_line(client: httpx2.Client) -> None:
    body = b"id,url\na,http://h/1\nb\n\nc,nonsense\n,http://h/2\nd,http://h/3\n"
    problem = post_csv(client, body, id_column="id").json()
    found = {row["index"]: row["detail"] for row in problem["problems"]}
    assert list(found) == [1, 2, 3]
    assert "line 3, 'b', has 1 cells" in found[1]
    assert "http://" in found[2]
    assert "line 6, column 'id': the id is empty" in found[3]


def test_duplicate_ids_are_found_in_a_long_table(client: httpx2.Client) -> None:
    rows = [["id", "url"], *([str(at % 500), "http://h/"] for at in range(501))]
    problem = post_csv(client, as_csv(rows), id_column="id").json()
    assert [(row["index"], row["id"], row["detail"]) for row in problem["problems"]] == [
        (500, "0", "line 2 and line 502 have the same id '0': ids must differ")
    ]


def test_a_byte_order_mark_before_any_line_of_ndjson_is_left_out(client: httpx2.Client) -> None:
    lines = [f'\ufeff{{"url": "http://h/{at}"}}' for at in range(2)]
    assert post_ndjson(client, lines).json()["counts"]["total"] == 2


def test_ndjson_is_one_item_a_line(client: httpx2.Client, site: Site) -> None:
    lines = [
        json.dumps({"id": f"n{at}", "url": site.url(f"/{at}.jpg"), "columns": {"row": str(at)}})
        for at in range(100)
    ]
    job = wait_done(client, post_ndjson(client, [*lines, ""]).json())
    results = all_results(client, job)
    assert [(result["id"], result["columns"]) for result in results] == [
        (f"n{at}", {"row": str(at)}) for at in range(100)
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metadata": {"note": "x" * 16_384}}, "16395 bytes as JSON, and the limit is 16384"),
        ({"metadata": {"note": "ü" * 8_192}}, "limit is 16384"),
        ({"model": "m" * 201}, "at most 200 characters"),
        ({"name": "n" * 201}, "at most 200 characters"),
        ({"webhook_url": f"https://h/{'x' * 4096}"}, "longer than 4096 characters"),
        ({"items": [{"url": "http://h/", "id": "x" * 1025}]}, "at most 1024 characters"),
    ],
)
def test_every_option_has_a_limit(
    client: httpx2.Client, options: dict[str, object], says: str
) -> None:
    body = options if "items" in options else {"urls": ["http://h/"], **options}
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 422
    assert says in answer.text


def test_metadata_of_16_kb_are_accepted(client: httpx2.Client) -> None:
    metadata = {"note": "x" * 16_373}
    answer = client.post("/jobs", json={"draft": True, "items": [], "metadata": metadata})
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"] == metadata


def test_ids_of_tables_and_names_of_files_have_a_limit(client: httpx2.Client) -> None:
    long = "x" * 1025
    table = post_csv(client, f"id,url\n{long},http://h/\n".encode(), id_column="id")
    form = client.post("/jobs", files=[("files", (long, jpeg(1)))])
    for answer in (table, form):
        assert answer.status_code == 422
        assert "the id has 1025 characters, and the limit is 1024" in answer.text


def test_a_refusal_is_shorter_than_what_it_refuses(client: httpx2.Client) -> None:
    name, item = "x" * 1_000_000, {"url": "http://h/"}
    many = {f"{index}": False for index in range(300_000)}
    for body in (
        {"urls": ["http://h/"], name: 1},
        {"urls": ["http://h/"], **many},
        {"items": [item | {name[:40_000]: 1}] * 100},
        {"items": [item | many]},
        {"items": [item | {"columns": many}]},
    ):
        answer = client.post("/jobs", json=body)
        assert (answer.status_code, len(answer.content) < 300_000) == (422, True)
    assert "300000 fields are unknown or have a wrong value" in answer.text
    assert "x" * 2000 in client.post("/jobs", json={name: 1}).json()["detail"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_columns_of_an_item_have_a_limit(client: httpx2.Client, kind: str) -> None:
    def post(cell: str) -> httpx2.Response:
        if kind == "json":
            item = {"url": "http://h/", "columns": {"note": cell}}
            return client.post("/jobs", json={"items": [item]})
        table = f"url,note\nhttp://h/,{cell}\n".encode()
        return client.post("/jobs", content=table, headers={"content-type": "text/csv"})

    limit = 16_384 - len("note")
    assert post("x" * limit).status_code == 202
    answer = post("x" * (limit + 1))
    assert answer.status_code == 422
    assert "its columns have 16385 characters, and the limit is 16384" in answer.text


def test_deep_nesting_is_refused_in_every_place_that_takes_json(client: httpx2.Client) -> None:
    deep = '{"a":' + "[" * 10_000
    csv_headers = {"content-type": "text/csv"}
    query = client.post(
        "/jobs", params={"metadata": deep}, content=b"url\nhttp://h/\n", headers=csv_headers
    )
    form = client.post(
        "/jobs", files=[("files", ("a.jpg", jpeg(1)))], data={"options": f'{{"metadata":{deep}'}
    )
    for answer in (query, form):
        assert (answer.status_code, answer.json()["code"]) == (422, "job_refused")
    draft = client.post("/jobs", json={"draft": True}).json()["id"]
    for path in ("/jobs", f"/jobs/{draft}/retry"):
        body = f'{{"urls":["http://h/"],"metadata":{deep}'
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_invalid_lines_of_ndjson_are_refused_by_number(client: httpx2.Client) -> None:
    lines = ['{"url": "http://h/"}', "{", '{"id": "x"}', '{"url": "http://h/", "uri": 1}']
    problem = post_ndjson(client, lines).json()
    assert [row["index"] for row in problem["problems"]] == [1, 2, 3]
    assert [row["detail"].split(":")[0] for row in problem["problems"]] == [
        "line 2",
        "line 3",
        "line 4",
    ]


def test_a_draft_takes_files_and_urls_until_it_is_submitted(
    client: httpx2.Client, site: Site
) -> None:
    answer = client.post("/jobs", json={"draft": True, "name": "folder", "model": "scenes"})
    assert answer.status_code == 201
    draft = answer.json()
    assert (draft["status"], draft["counts"]["total"]) == ("draft", 0)
    items = f"/jobs/{draft['id']}/items"
    first = client.post(items, files=[("files", (f"{at}.jpg", jpeg(at))) for at in range(3)])
    assert first.json()["counts"]["total"] == 3
    again = client.post(items, files=[("files", (f"{at}.jpg", jpeg(at))) for at in range(1, 5)])
    assert again.json()["counts"]["total"] == 5, "an item is added once"
    client.post(items, json={"items": [{"id": "web", "url": site.url("/1.jpg")}]})

    submitted = client.post(f"/jobs/{draft['id']}/submit")
    assert submitted.status_code == 202
    job = wait_done(client, submitted.json())
    assert (job["id"], job["status"], job["name"]) == (draft["id"], "succeeded", "folder")
    ids = [result["id"] for result in job["results"]]
    assert ids == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "web"]
    assert len({str(result["scores"]) for result in job["results"][:5]}) == 5

    late = client.post(items, json={"items": [{"url": site.url("/1.jpg")}]})
    assert (late.status_code, late.json()["code"]) == (409, "job_not_draft")
    twice = client.post(f"/jobs/{draft['id']}/submit")
    assert (twice.status_code, twice.json()["code"]) == (409, "job_not_draft")


def test_a_draft_takes_items_from_many_requests_at_once(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()

    def send(batch: int) -> int:
        urls = [{"id": f"{batch}-{at}", "url": "http://127.0.0.1:9/"} for at in range(50)]
        return client.post(f"/jobs/{draft['id']}/items", json={"items": urls}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(16))) == {200}
    job = wait_done(client, client.post(f"/jobs/{draft['id']}/submit").json())
    assert job["counts"]["total"] == 800
    assert len({result["id"] for result in all_results(client, job, limit=500)}) == 800


def test_items_without_ids_are_numbered_on_in_a_draft(client: httpx2.Client, site: Site) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    tables = {"content-type": "text/csv"}
    lines = {"content-type": "application/x-ndjson"}
    row = '{"url":"%s"}'
    head = b'--BB\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n'
    unnamed = head + jpeg(5) + b"\r\n--BB--\r\n"
    requests: list[dict[str, Any]] = [
        {"json": {"urls": [site.url("/0.jpg"), site.url("/1.jpg")]}},
        {"content": f"url,k\n{site.url('/2.jpg')},2\n".encode(), "headers": tables},
        {"content": "\n".join(row % site.url(f"/{at}.jpg") for at in (3, 4)), "headers": lines},
        {"content": unnamed, "headers": {"content-type": "multipart/form-data; boundary=BB"}},
        {"json": {"items": [{"url": site.url("/6.jpg"), "id": "7"}]}},
        {"json": {"urls": [site.url("/7.jpg"), site.url("/8.jpg")]}},
    ]
    answers = [client.post(f"{draft}/items", **request) for request in requests]
    assert [answer.status_code for answer in answers] == [200] * 6, answers[3].text
    added = [answer.json()["added_ids"] for answer in answers]
    assert added == [["0", "1"], ["2"], ["3", "4"], ["5"], ["7"], ["8", "9"]]
    assert [answer.json()["counts"]["total"] for answer in answers] == [2, 3, 5, 6, 7, 9]
    assert {answer.json()["existing_count"] for answer in answers} == {0}
    job = wait_done(client, client.post(f"{draft}/submit").json())
    assert [item["id"] for item in job["results"]] == [id_ for ids in added for id_ in ids]
    urls = [item["source"]["url"] for item in job["results"] if item["source"]["url"]]
    assert urls == [site.url(f"/{at}.jpg") for at in (0, 1, 2, 3, 4, 6, 7, 8)]


def test_a_draft_says_what_it_had_and_refuses_another_item_of_the_same_id(
    client: httpx2.Client, site: Site
) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    two = [("files", ("x.jpg", jpeg(1))), ("files", ("x.jpg", jpeg(2)))]
    answer = client.post(f"{draft}/items", files=[*two, ("files", ("x.jpg", jpeg(1)))])
    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "items_refused")
    assert [(row["index"], row["id"]) for row in body["problems"]] == [(1, "x.jpg")]
    assert "another item of this id" in body["problems"][0]["detail"]
    assert (body["added_count"], body["added_ids"]) == (1, ["x.jpg"])
    assert (body["existing_count"], body["existing_ids"]) == (1, ["x.jpg"])

    later = client.post(f"{draft}/items", files=[("files", ("x.jpg", jpeg(3)))])
    assert (later.status_code, later.json()["added_count"]) == (422, 0)
    item = {"id": "web", "url": site.url("/1.jpg")}
    first = client.post(f"{draft}/items", json={"items": [item]}).json()
    again = client.post(f"{draft}/items", json={"items": [item, {**item, "id": "w"}]}).json()
    assert (first["added_ids"], again["added_ids"], again["existing_ids"]) == (
        ["web"],
        ["w"],
        ["web"],
    )
    table = f"id,url\nnew,{site.url('/1.jpg')}\nweb,{site.url('/2.jpg')}\n"
    other = client.post(
        f"{draft}/items",
        content=table,
        params={"id_column": "id"},
        headers={"content-type": "text/csv"},
    ).json()
    assert (other["problems"][0]["index"], other["added_ids"]) == (1, ["new"])
    assert other["problems"][0]["detail"].startswith("line 3: ")

    job = wait_done(client, client.post(f"{draft}/submit").json())
    alone = client.post("/jobs", files=[("files", ("x.jpg", jpeg(1)))]).json()
    scores = wait_done(client, alone)["results"][0]["scores"]
    assert [item["id"] for item in job["results"]] == ["x.jpg", "web", "w", "new"]
    assert job["results"][0]["scores"] == scores, "the first picture was replaced"


def test_a_body_that_breaks_off_in_a_draft_says_what_was_added(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    table = b"url\n" + b"http://127.0.0.1:9/\n" * 1200 + b'"a"b\n' + b"http://127.0.0.1:9/\n"
    answer = client.post(f"{draft}/items", content=table, headers={"content-type": "text/csv"})
    assert answer.status_code == 400
    assert (answer.json()["added_count"], len(answer.json()["added_ids"])) == (1200, 1000)
    assert client.get(draft).json()["counts"]["total"] == 1200


def test_a_request_of_a_draft_that_is_sent_again_with_its_key_adds_each_item_once(
    client: httpx2.Client,
) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    urls = [f"http://127.0.0.1:9/{at}" for at in range(3)]

    def send(key: str, urls: list[str]) -> dict[str, Any]:
        headers = {"Idempotency-Key": key}
        body: dict[str, Any] = client.post(
            f"{draft}/items", json={"urls": urls}, headers=headers
        ).json()
        return body

    with ThreadPoolExecutor(4) as pool:  # a client that is impatient, and its proxy
        answers = list(pool.map(lambda _: send("a", urls), range(8)))
    added, existing = ([body[f"{kind}_ids"] for body in answers] for kind in ("added", "existing"))
    assert sorted(item for ids in added for item in ids) == ["0", "1", "2"]
    assert all(
        sorted([*new, *old]) == ["0", "1", "2"] for new, old in zip(added, existing, strict=True)
    )
    assert send("b", urls)["added_ids"] == ["3", "4", "5"]
    other = send("a", [urls[0], "http://127.0.0.1:9/other", *urls[2:], urls[0]])
    assert [(row["index"], row["id"]) for row in other["problems"]] == [(1, "1")]
    assert (other["added_ids"], other["existing_ids"]) == (["6"], ["0", "2"])
    assert client.get(draft).json()["counts"]["total"] == 7
    refused = client.post(
        f"{draft}/items", json={"urls": urls}, headers={"Idempotency-Key": "x" * 256}
    )
    assert "the Idempotency-Key has 256 characters" in refused.json()["detail"]


def test_requests_without_ids_share_no_number(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]

    def send(_: int) -> list[str]:
        urls = ["http://127.0.0.1:9/"] * 50
        ids: list[str] = client.post(f"{draft}/items", json={"urls": urls}).json()["added_ids"]
        return ids

    with ThreadPoolExecutor(8) as pool:
        ids = [item_id for added in pool.map(send, range(16)) for item_id in added]
    assert sorted(map(int, ids)) == list(range(800))


def test_an_invalid_or_empty_draft_is_refused(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    empty = client.post(f"/jobs/{draft['id']}/submit")
    assert (empty.status_code, empty.json()["code"]) == (422, "job_refused")
    invalid = client.post(f"/jobs/{draft['id']}/items", json={"urls": ["http://h/", "x"]})
    assert [row["index"] for row in invalid.json()["problems"]] == [1]


@pytest.mark.parametrize(
    ("method", "path", "advice"),
    [
        (
            "POST",
            "/submit",
            "leave it out, and give the options of a draft when you open it with POST /jobs",
        ),
        ("POST", "/cancel", "leave it out"),
        ("POST", "/webhook/replay", "leave it out"),
        ("DELETE", "", "leave it out"),
    ],
)
def test_a_body_that_would_be_ignored_is_refused(
    client: httpx2.Client, method: str, path: str, advice: str
) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    client.post(f"/jobs/{draft['id']}/items", json={"urls": ["http://127.0.0.1:9/"]})
    refused = client.request(method, f"/jobs/{draft['id']}{path}", json={"name": "x"})
    assert (refused.status_code, refused.json()["code"]) == (422, "job_refused")
    assert refused.json()["detail"] == f"the body has no effect here: {advice}"
    assert client.get(f"/jobs/{draft['id']}").json()["status"] == "draft"
    accepted = client.request(method, f"/jobs/{draft['id']}{path}", json={})
    assert "the body has no effect" not in accepted.text


def test_a_file_keeps_the_name_its_sender_gave_it(client: httpx2.Client) -> None:
    names = ['12" vinyl.jpg', "two\nlines.jpg", "50%25 ü%.jpg"]
    files = [("files", (name, jpeg(at))) for at, name in enumerate(names)]
    job = wait_done(client, client.post("/jobs", files=files).json())
    assert [item["id"] for item in job["results"]] == names
    assert [item["source"]["filename"] for item in job["results"]] == names


def test_an_idempotency_key_gives_the_same_job_again(client: httpx2.Client, site: Site) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"urls": [site.url("/1.jpg")]}
    first = client.post("/jobs", json=body, headers=headers)
    again = client.post("/jobs", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = client.post("/jobs", json={"urls": [site.url("/2.jpg")]}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_an_idempotency_key_compares_a_form_by_its_files(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first, again, other = (
        client.post("/jobs", files=[("files", ("a.jpg", jpeg(seed)))], headers=headers)
        for seed in (1, 1, 2)
    )
    assert first.json()["id"] == again.json()["id"], "although the boundary differs"
    assert other.status_code == 422


def test_a_key_whose_submission_was_refused_can_be_used_again(
    client: httpx2.Client, site: Site
) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    assert client.post("/jobs", json={"urls": ["x"]}, headers=headers).status_code == 422
    good = client.post("/jobs", json={"urls": [site.url("/1.jpg")]}, headers=headers)
    assert good.status_code == 202


def test_a_submission_in_flight_is_not_submitted_twice(
    stack: Stack, client: httpx2.Client, site: Site
) -> None:
    key = uuid.uuid4().hex
    body = {"urls": [site.url("/1.jpg")]}
    with Redis.from_url(stack.redis_url) as redis:
        keys = IdempotencyKeys(redis, 60)
        keys.begin(ANYONE, key)  # as another API process that works on the request
        waiting = client.post("/jobs", json=body, headers={"Idempotency-Key": key})
        assert (waiting.status_code, waiting.json()["code"]) == (409, "idempotency_in_flight")
        assert int(waiting.headers["retry-after"]) > 0
        keys.release(ANYONE, key)
    assert client.post("/jobs", json=body, headers={"Idempotency-Key": key}).status_code == 202


def test_an_upload_that_was_cut_off_can_be_sent_again_at_once(
    client: httpx2.Client, site: Site
) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex, "content-type": "text/csv"}
    body = f"url\n{site.url('/1.jpg')}\n".encode()
    statuses = []

    def cut_off() -> Iterator[bytes]:
        yield body
        statuses.append(client.post("/jobs", content=body, headers=headers).status_code)
        raise EOFError

    with httpx2.Client(base_url=client.base_url, timeout=60) as other, pytest.raises(EOFError):
        other.post("/jobs", content=cut_off(), headers=headers)
    assert statuses == [202]


def test_prefer_wait_answers_with_the_results(client: httpx2.Client, site: Site) -> None:
    body = {"urls": [site.url("/1.jpg")]}
    answer = client.post("/jobs", json=body, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["results"][0]["scores"]


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ('wait="20"', "wait=20"),
        ("respond-async, WAIT = 20 ; a=b", "wait=20"),
        ("wait=99999", "wait=60"),
        (f"wait={'9' * 5000}", "wait=60"),
        ("wait=abc", None),
        ("wait=2x", None),
        ("x-wait=20", None),
    ],
)
def test_a_preference_is_read_as_its_standard_says(
    client: httpx2.Client, site: Site, prefer: str, applied: str | None
) -> None:
    body = {"urls": [site.url("/1.jpg")]}
    answer = client.post("/jobs", json=body, headers={"Prefer": prefer})
    assert answer.status_code == (200 if applied else 202)
    assert answer.headers.get("preference-applied") == applied


def test_a_long_poll_answers_when_the_job_is_done(client: httpx2.Client, site: Site) -> None:
    job = client.post("/jobs", json={"urls": [site.url("/1.jpg")]}).json()
    assert client.get(job["links"]["self"], params={"wait": "50"}).json()["done"]
    unfinished = client.post("/jobs", json={"draft": True}).json()
    answer = client.get(unfinished["links"]["self"], params={"wait": "0.1"})
    assert answer.json()["done"] is False


def processor_s(pid: int) -> float:
    """The processor time of a process, which grows no faster if the machine stalls."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_job_that_has_not_changed_is_not_sent_again(
    stack: Stack, client: httpx2.Client, site: Site
) -> None:
    job = wait_done(client, client.post("/jobs", json={"urls": [site.url("/1.jpg")]}).json())
    first = client.get(job["links"]["self"])
    again = client.get(job["links"]["self"], headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    spaces = " " * 32_000  # a regular expression that is quadratic in them takes seconds
    assert stack.api_pid is not None
    for tags, status in [(f"x{spaces}x", 200), (f'"x"{spaces},{first.headers["etag"]}', 304)]:
        began_s = processor_s(stack.api_pid)
        answer = client.get(job["links"]["self"], headers={"If-None-Match": tags})
        assert answer.status_code == status
        assert processor_s(stack.api_pid) - began_s < 1
    without = client.get(job["links"]["self"], params={"results": "false"})
    assert without.headers["etag"] != first.headers["etag"]


def test_jobs_are_listed_newest_first(client: httpx2.Client, site: Site) -> None:
    ids = [client.post("/jobs", json={"urls": [site.url("/1.jpg")]}).json()["id"] for _ in range(5)]
    page = client.get("/jobs", params={"limit": 3}).json()
    assert [job["id"] for job in page["jobs"]] == ids[:1:-1]
    rest = client.get("/jobs", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["jobs"]] == ids[1::-1]
    unique = uuid.uuid4().hex
    name = f"Heron {unique} 100 %"
    draft = client.post("/jobs", json={"draft": True, "name": name}).json()
    for text in (f"heron {unique}", f"{unique} 100 %", draft["id"].lower()):
        found = client.get("/jobs", params={"search": text}).json()
        assert [job["id"] for job in found["jobs"]] == [draft["id"]]
        assert found["next_cursor"] is None
    drafts = client.get("/jobs", params={"status": "draft"}).json()["jobs"]
    assert drafts[0]["id"] == draft["id"]
    assert {job["status"] for job in drafts} == {"draft"}
    client.delete(draft["links"]["self"])
    listed = client.get("/jobs").json()["jobs"]
    assert draft["id"] not in [job["id"] for job in listed]


def test_too_many_failures_end_a_job(client: httpx2.Client) -> None:
    refused = ["http://127.0.0.1:9/"] * 2000
    body = {"urls": refused, "max_failures": "1%"}
    job = wait_done(client, client.post("/jobs", json=body).json())
    assert job["status"] == "failed"
    assert job["error"].startswith("failure_budget")
    counts = job["counts"]
    assert counts["failed"] > 20
    assert counts["cancelled"] == 2000 - counts["failed"] > 0


@pytest.mark.parametrize("max_failures", [-1, "101%", "many", "5.12345%"])
def test_an_invalid_failure_budget_is_refused(
    client: httpx2.Client, max_failures: int | str
) -> None:
    answer = client.post("/jobs", json={"urls": ["http://h/"], "max_failures": max_failures})
    assert answer.status_code == 422
    assert "max_failures" in answer.json()["detail"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, str, str]]:
    """Run a stack with two API keys and a small quota."""
    env = {**STACK_ENV, "PIQUEUE_QUOTA_ITEMS": "10"}
    with (
        Stack(tmp_path_factory.mktemp("guarded"), env=env) as stack,
        Redis.from_url(stack.redis_url) as redis,
    ):
        keys = KeyStore(redis)
        yield stack, keys.add("alice"), keys.add("bob")


def test_only_the_owner_sees_a_job(guarded: tuple[Stack, str, str], site: Site) -> None:
    stack, alice_key, bob_key = guarded
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        alice, bob = ({"Authorization": f"Bearer {key}"} for key in (alice_key, bob_key))
        body = {"urls": [site.url("/1.jpg")]}
        job = client.post("/jobs", json=body, headers=alice).json()
        path = job["links"]["self"]
        assert client.get(path, headers=alice).status_code == 200
        assert client.get(path, headers=bob).status_code == 404
        assert job["id"] not in {
            seen["id"] for seen in client.get("/jobs", headers=bob).json()["jobs"]
        }
        assert job["id"] in {
            seen["id"] for seen in client.get("/jobs", headers=alice).json()["jobs"]
        }
        wrong = client.get(path, headers={"Authorization": "Bearer pq_wrong"})
        assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/healthz").status_code == 200


def test_a_caller_over_its_quota_is_told_to_wait(guarded: tuple[Stack, str, str]) -> None:
    stack, alice_key, _ = guarded
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        alice = {"Authorization": f"Bearer {alice_key}"}
        answer = client.post("/jobs", json={"urls": ["http://h/"] * 11}, headers=alice)
    assert (answer.status_code, answer.json()["code"]) == (429, "over_quota")
    assert "send these 11 as several smaller jobs" in answer.json()["detail"]
    assert 1 <= int(answer.headers["retry-after"]) <= 300


def test_one_key_leaves_room_for_the_uploads_of_others(tmp_path: Path) -> None:
    """Pictures that fail stay stored, so that they can be retried."""
    broken = jpeg(1)[:60] + bytes(150_000)
    env = {**STACK_ENV, "PIQUEUE_STORAGE_URL": "redis"}
    with (
        ExitStack() as resources,
        Stack(tmp_path, env=env, redis_memory="24mb") as stack,
        Redis.from_url(stack.redis_url) as redis,
    ):
        keys = KeyStore(redis)
        alice, bob = (
            resources.enter_context(
                httpx2.Client(
                    base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
                )
            )
            for key in (keys.add("alice"), keys.add("bob"))
        )

        def send(caller: httpx2.Client, payload: bytes) -> httpx2.Response:
            files, headers = [("files", ("a.jpg", payload))], {"Prefer": "wait=60"}
            return caller.post("/jobs", files=files, headers=headers)

        while (answer := send(alice, broken)).is_success:
            assert answer.json()["counts"]["failed"] == 1
        assert (answer.status_code, answer.json()["code"]) == (429, "over_quota")
        assert int(answer.headers["retry-after"]) > 0
        limits = alice.get("/limits").json()
        assert limits["upload_bytes"] > 500_000
        assert limits["upload_room_bytes"] < len(broken)
        assert send(bob, jpeg(2)).json()["counts"]["succeeded"] == 1
        assert bob.get("/limits").json()["upload_bytes"] == 0


def test_cached_scores_tell_no_other_key_that_a_picture_was_submitted(
    guarded: tuple[Stack, str, str],
) -> None:
    stack, alice_key, bob_key = guarded
    files = [("files", ("a.jpg", jpeg(uuid.uuid4().int)))]
    options = {"options": json.dumps({"use_cache": True})}
    with httpx2.Client(base_url=stack.url, timeout=60) as client:

        def submit() -> dict[str, Any]:
            return wait_done(client, client.post("/jobs", files=files, data=options).json())

        cached = []
        for key, count in ((alice_key, 0), (bob_key, 0), (alice_key, 1), (bob_key, 1)):
            client.headers["Authorization"] = f"Bearer {key}"
            cached.append(until_cached(submit, count)["counts"]["cached"])
    assert cached == [0, 0, 1, 1]


def test_without_keys_the_api_does_not_listen_beyond_this_machine(redis_url: str) -> None:
    command = [sys.executable, "-m", "api", "--host", "0.0.0.0", "--port", "0"]
    env = {"PIQUEUE_REDIS_URL": redis_url, "PATH": ""}
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert answer.returncode == 1
    assert "PIQUEUE_ALLOW_NO_KEYS" in answer.stderr


def test_beyond_this_machine_keys_stay_required_after_the_last_one_is_removed(
    redis_client: Redis, redis_url: str, tmp_path: Path
) -> None:
    keys = KeyStore(redis_client)
    headers = {"Authorization": f"Bearer {keys.add('alice')}"}
    (alice,) = keys.all()
    port = listenable_port("127.0.0.1", 0)
    api = SupervisedProcess(
        [sys.executable, "-m", "api", "--host", "0.0.0.0", "--port", str(port)],
        tmp_path / "api.log",
        env={"PIQUEUE_REDIS_URL": redis_url, "PIQUEUE_ALLOW_NO_KEYS": "false"},
        cwd=ROOT,
    )

    def up() -> bool:
        try:
            return client.get("/healthz").is_success
        except httpx2.TransportError:
            return False

    api.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            api.wait_until(up, 60, "api")
            assert client.get("/limits", headers=headers).status_code == 200
            assert client.get("/limits").status_code == 401
            keys.remove(alice.owner)
            assert client.get("/limits", headers=headers).status_code == 401
            assert client.get("/limits").status_code == 401
    finally:
        api.stop(grace_s=10)


def newest_job(client: httpx2.Client) -> list[str]:
    """Its id: the rest of a job changes while it runs."""
    return [job["id"] for job in client.get("/jobs", params={"limit": 1}).json()["jobs"]]


def test_a_dry_run_checks_all_rows_tries_some_and_keeps_nothing(
    client: httpx2.Client, site: Site
) -> None:
    urls = [site.url(f"/{at}.jpg") for at in range(150)] + ["http://127.0.0.2:9/x.jpg"] * 150
    before = newest_job(client)
    answer = client.post("/jobs", json={"urls": urls, "dry_run": True})
    assert answer.status_code == 200
    report = answer.json()
    assert (report["dry_run"], report["items"], report["sampled"]) == (True, 300, 50)
    assert report["eta_s"] >= 0
    refusing, fine = report["hosts"]
    assert refusing["host"] == "127.0.0.2"
    assert refusing["failures"] == {"fetch_blocked_address": refusing["sampled"]}
    assert fine == {"host": "127.0.0.1", "sampled": 50 - refusing["sampled"], "failures": {}}
    assert newest_job(client) == before
    invalid = client.post("/jobs", json={"urls": [*urls, "x"], "dry_run": True})
    assert [row["index"] for row in invalid.json()["problems"]] == [300]


def test_with_the_cache_pictures_are_scored_once(
    client: httpx2.Client,
) -> None:
    files = [("files", (f"{at}.jpg", jpeg(uuid.uuid4().int))) for at in range(6)]
    options = {"options": json.dumps({"use_cache": True})}

    def submit(**form: Any) -> dict[str, Any]:
        return wait_done(client, client.post("/jobs", files=files, **form).json())

    first = submit(data=options)
    second = until_cached(lambda: submit(data=options), 6)
    third = submit()
    assert [job["counts"]["cached"] for job in (first, second, third)] == [0, 6, 0]
    assert [result["cached"] for result in second["results"]] == [True] * 6
    for result, again in zip(first["results"], second["results"], strict=True):
        assert (result["scores"], result["image"]) == (again["scores"], again["image"])


def test_a_file_gets_the_name_that_dotnet_sends_beside_an_encoded_one(
    client: httpx2.Client,
) -> None:
    disposition = (
        'form-data; name=files; filename="=?utf-8?B?w6l0w6kuanBn?="; '
        "filename*=utf-8''%C3%A9t%C3%A9%3B.jpg"
    )
    head = f"--BB\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    headers = {"content-type": "multipart/form-data; boundary=BB"}
    form = head + jpeg(3) + b"\r\n--BB--\r\n"
    job = wait_done(client, client.post("/jobs", content=form, headers=headers).json())
    assert [item["source"]["filename"] for item in job["results"]] == ["été;.jpg"]
