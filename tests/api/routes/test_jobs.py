"""Jobs over HTTP on a running Piqueue: real Redis, real worker, real pictures."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from aiohttp import web

from model.images.decode import decode
from model.predictor import load_predictor
from tests.api.polling import all_results, wait_done
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from tests.worker.fetching.site import Answer, Site
from worker.jobs.settings import ARTIFACTS_PATH

NOT_A_PICTURE = b"<html>no picture here</html>"


def gives(payload: bytes, delay_s: float = 0) -> Answer:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(delay_s)
        return web.Response(body=payload, content_type="image/jpeg")

    return answer


def status(code: int) -> Answer:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=code)

    return answer


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [jpeg(seed) for seed in range(100)]


@pytest.fixture(scope="module")
def site(pictures: list[bytes]) -> Iterator[Site]:
    """Serve the pictures, the first ones last."""
    answers = {
        f"/{index}.jpg": gives(payload, delay_s=0.3 - index * 0.003)
        for index, payload in enumerate(pictures)
    }
    answers |= {
        "/page.html": gives(NOT_A_PICTURE),
        "/truncated.jpg": gives(pictures[0][:2000]),
        "/gone.jpg": status(404),
        "/huge.jpg": gives(bytes(1_000_001)),
    }
    with Site(answers) as running:
        yield running


def test_a_job_whose_items_arrive_out_of_order_gives_each_its_own_scores(
    client: httpx2.Client, site: Site, pictures: list[bytes]
) -> None:
    urls = [site.url(f"/{index}.jpg") for index in range(100)]
    job = wait_done(client, client.post("/jobs", json={"urls": urls}).json())

    assert job["status"] == "succeeded"
    items = all_results(client, job)
    assert [item["index"] for item in items] == list(range(100))
    assert [item["source"]["url"] for item in items] == urls
    predictor = load_predictor(ARTIFACTS_PATH / "scenes" / "5")
    expected = predictor.predict([decode(picture).pixels for picture in pictures])
    for item, picture, prediction in zip(items, pictures, expected, strict=True):
        assert item["image"]["sha256"] == hashlib.sha256(picture).hexdigest()
        np.testing.assert_allclose(list(item["scores"].values()), prediction.scores, atol=1e-4)
    assert len({prediction.scores for prediction in expected}) == 100, "a swap would not show"


def test_good_and_bad_items_keep_their_index(
    client: httpx2.Client, site: Site, pictures: list[bytes]
) -> None:
    items = [
        {"id": "good", "url": site.url("/7.jpg")},
        {"id": "page", "url": site.url("/page.html")},
        {"id": "gone", "url": site.url("/gone.jpg")},
        {"id": "cut", "url": site.url("/truncated.jpg")},
        {"id": "huge", "url": site.url("/huge.jpg")},
        {"id": "private", "url": site.url("/7.jpg", host="127.0.0.2")},
        {"id": "refused", "url": "http://127.0.0.1:9/"},
        {"id": "also good", "url": site.url("/8.jpg")},
    ]
    job = wait_done(client, client.post("/jobs", json={"items": items}).json())

    assert job["status"] == "partially_succeeded"
    results = job["results"]
    assert [result["id"] for result in results] == [item["id"] for item in items]
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes == [
        None,
        "not_an_image",
        "fetch_http_status",
        "truncated",
        "fetch_too_large",
        "fetch_blocked_address",
        "fetch_connection",
        None,
    ]
    assert job["failures"] == {code: 1 for code in codes if code}
    assert (job["counts"]["succeeded"], job["counts"]["failed"]) == (2, 6)
    for result in results:
        assert (result["scores"] is None) == (result["error"] is not None)
    assert results[7]["image"]["sha256"] == hashlib.sha256(pictures[8]).hexdigest()


def test_uploaded_files_are_scored_and_named_by_their_file_name(
    client: httpx2.Client, pictures: list[bytes]
) -> None:
    files = [("files", (f"p{index}.jpg", picture)) for index, picture in enumerate(pictures[:20])]
    options = {"name": "my folder", "metadata": {"order": [1, None]}, "model": "scenes@5"}
    answer = client.post("/jobs", files=files, data={"options": json.dumps(options)})

    assert answer.status_code == 202
    job = wait_done(client, answer.json())
    assert (job["name"], job["metadata"]) == ("my folder", {"order": [1, None]})
    assert [result["id"] for result in job["results"]] == [f"p{at}.jpg" for at in range(20)]
    hashes = [result["image"]["sha256"] for result in job["results"]]
    assert hashes == [hashlib.sha256(picture).hexdigest() for picture in pictures[:20]]
    assert job["results"][0]["source"] == {"type": "upload", "url": None, "filename": "p0.jpg"}


def test_an_accepted_job_has_its_location_and_when_to_poll(client: httpx2.Client) -> None:
    held = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=jpeg(1))

    with Site({"/held.jpg": hold}) as local:
        answer = client.post("/jobs", json={"urls": [local.url("/held.jpg")]})
        assert answer.status_code == 202
        job = answer.json()
        assert answer.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
        assert int(answer.headers["retry-after"]) >= 1
        assert job["counts"]["total"] == 1
        local.call(held.set)
        done = wait_done(client, job)
    times = [
        datetime.fromisoformat(done[f"{word}_at"])
        for word in ("created", "started", "finished", "expires")
    ]
    assert times == sorted(times)
    assert all(time.utcoffset() is not None for time in times)
    assert "retry-after" not in client.get(job["links"]["self"]).headers


def test_labels_are_those_whose_score_reaches_the_threshold(
    client: httpx2.Client, site: Site
) -> None:
    (model,) = [model for model in client.get("/models").json() if model["default"]]
    urls = [site.url(f"/{index}.jpg") for index in range(40)]
    job = wait_done(client, client.post("/jobs", json={"urls": urls}).json())
    for result in job["results"]:
        assert result["labels"] == [
            label
            for label, score in result["scores"].items()
            if score >= model["thresholds"][label]
        ]


def test_results_are_omitted_on_request(client: httpx2.Client, site: Site) -> None:
    job = wait_done(client, client.post("/jobs", json={"urls": [site.url("/1.jpg")]}).json())
    assert len(job["results"]) == 1
    answer = client.get(job["links"]["self"], params={"results": "false"})
    assert answer.json()["results"] is None


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({"urls": ["http://h/1.jpg", "ftp://h/2.jpg"]}, {1: "http:// or https://"}),
        ({"urls": ["http:///x", "not a url"]}, {0: "no host", 1: "spaces"}),
        ({"urls": ["http://user:secret@h/"]}, {0: "user name or password"}),
        ({"urls": ["http://h:99999/"]}, {0: "not a URL"}),
        ({"urls": ["http://h/" + "x" * 5000]}, {0: "longer than 4096"}),
        (
            {"items": [{"url": "http://h/", "id": "a"}, {"url": "http://i/", "id": "a"}]},
            {1: "item 0 and item 1 have the same id 'a': ids must differ"},
        ),
        ({"items": [{"url": "http://h/"}, {"id": "b"}]}, {1: "url: is missing: add it"}),
        ({"urls": ["http://h/", 7]}, {1: "the URL must be a string, in quotes"}),
    ],
)
def test_invalid_items_are_refused_by_row(
    client: httpx2.Client, body: dict[str, object], rows: dict[int, str]
) -> None:
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "items_refused"
    assert problem["problem_count"] == len(rows)
    assert [found["index"] for found in problem["problems"]] == list(rows)
    for found in problem["problems"]:
        assert rows[found["index"]] in found["detail"]
    assert "secret" not in answer.text


def test_a_hundred_invalid_items_are_listed_and_the_rest_counted(client: httpx2.Client) -> None:
    problem = client.post("/jobs", json={"urls": ["x"] * 250}).json()
    assert problem["problem_count"] == 250
    assert len(problem["problems"]) == 100


@pytest.mark.parametrize(
    ("send", "code", "problem", "says"),
    [
        ({"json": {}}, 422, "job_refused", "the body has no pictures: give urls or items"),
        ({"json": {"urls": None}}, 422, "job_refused", "no pictures: give urls or items"),
        (
            {"json": {"draft": True, "dry_run": True}},
            422,
            "job_refused",
            "body: has both draft and dry_run: leave one of them out",
        ),
        ({"json": {"urls": []}}, 422, "job_refused", "no items"),
        ({"json": {"urls": ["http://h/"], "items": []}}, 422, "job_refused", "either"),
        ({"json": {"urls": ["http://h/"], "modle": "x"}}, 422, "job_refused", "modle"),
        ({"json": {"urls": ["http://h/"], "model": "cats"}}, 422, "model_not_found", "scenes@5"),
        ({"json": {"urls": ["http://h/"], "model": "scenes@99"}}, 422, "model_not_found", "@99"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "body", "JSON"),
        ({"content": b"x", "headers": {"content-type": "text/html"}}, 415, "unsupp", "text/html"),
        ({"content": b"x"}, 415, "unsupported_body", "missing"),
        ({"files": [("pictures", ("a.jpg", b"x"))]}, 422, "job_refused", "'pictures'"),
        (
            {"files": [("files", ("a.jpg", NOT_A_PICTURE))]},
            422,
            "items_refused",
            "of the items are refused",
        ),
        ({"files": [("files", ("a.jpg", b""))]}, 422, "items_refused", "of the items are refused"),
        ({"files": [("files", (None, b"x"))]}, 422, "job_refused", "'files' without a file name"),
    ],
)
def test_invalid_submissions_are_refused_with_a_reason(
    client: httpx2.Client, send: dict[str, object], code: int, problem: str, says: str
) -> None:
    answer = client.post("/jobs", **send)  # type: ignore[arg-type]
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"].startswith(problem)
    assert body["status"] == code
    assert says in body["detail"]


def newest_job(client: httpx2.Client) -> list[str]:
    return [job["id"] for job in client.get("/jobs", params={"limit": 1}).json()["jobs"]]


def new_draft(client: httpx2.Client) -> str:
    draft: str = client.post("/jobs", json={"draft": True}).raise_for_status().json()["id"]
    return draft


@pytest.mark.parametrize("path", ["/jobs", "/scorefile/"])
@pytest.mark.parametrize("end", ["", "\r\n", "\r\n--BB\r\n", "\r\n--BB-"])
def test_a_form_that_ends_early_makes_no_job(client: httpx2.Client, path: str, end: str) -> None:
    before = newest_job(client)
    field = "files" if path == "/jobs" else "file"
    part = f'--BB\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n\r\n'
    body = part.encode() + jpeg(1) + end.encode()
    headers = {"content-type": "multipart/form-data; boundary=BB"}
    answer = client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "body_unreadable")
    assert "closing boundary" in answer.json()["detail"] or end == "\r\n--BB-"
    assert newest_job(client) == before


def test_the_options_of_a_form_can_be_a_blob(client: httpx2.Client) -> None:
    blob = ("blob", b'{"name": "from a browser"}', "application/json")
    answer = client.post("/jobs", files={"options": blob, "files": ("a.jpg", jpeg(1))})
    assert answer.status_code == 202, answer.text
    assert answer.json()["name"] == "from a browser"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/jobs", "text/csv"),
        ("/jobs", "application/json"),
        ("/jobs", "application/x-ndjson"),
        ("/jobs", "multipart/form-data; boundary=BB"),
        ("/scorefile/", "multipart/form-data; boundary=BB"),
        ("/jobs/{draft}/retry", "application/json"),
    ],
)
def test_a_compressed_body_is_refused_as_such(client: httpx2.Client, path: str, kind: str) -> None:
    path = path.format(draft=new_draft(client))
    headers = {"content-type": kind, "content-encoding": "gzip"}
    answer = client.post(path, content=gzip.compress(b"url\n"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_body")
    assert "'gzip': send it unpacked" in answer.json()["detail"]
    assert answer.headers["accept-encoding"] == "identity"
    twice = [("content-type", kind), ("content-encoding", "identity"), ("content-encoding", "gzip")]
    assert client.post(path, content=b"x", headers=twice).status_code == 415
    empty = {"content-type": kind, "content-encoding": ""}
    assert client.post(path, content=b"x", headers=empty).status_code != 415
    plain = client.get("/limits", headers={"content-encoding": "gzip"})
    assert plain.status_code == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", '{"urls": ["http://127.0.0.1:9/"]}'),
        ("application/x-ndjson", '{"url": "http://127.0.0.1:9/"}\n'),
        ("text/csv", "url\nhttp://127.0.0.1:9/\n"),
    ],
)
def test_a_byte_order_mark_is_ignored(client: httpx2.Client, kind: str, body: str) -> None:
    answer = client.post("/jobs", content=body.encode("utf-8-sig"), headers={"content-type": kind})
    assert answer.status_code == 202, answer.text
    assert answer.json()["counts"]["total"] == 1


def test_a_body_over_the_limit_is_refused_while_it_streams_in(client: httpx2.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"urls": ["'
        for _ in range(30):
            yield b"x" * 1_000_000

    for kind, limit in (("application/json", "5000000 bytes"), ("text/csv", "20000000 bytes")):
        answer = client.post("/jobs", content=endless(), headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert limit in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/jobs", "application/json"),
        ("/jobs", "text/csv"),
        ("/jobs", "multipart/form-data; boundary=x"),
        ("/scorefile/", "multipart/form-data; boundary=x"),
        ("/jobs/{draft}/retry", "application/json"),
    ],
)
def test_a_body_with_a_content_length_over_the_limit_is_refused_as_a_problem(
    client: httpx2.Client, path: str, kind: str
) -> None:
    path = path.format(draft=new_draft(client))
    answer = client.post(path, content=bytes(20_000_001), headers={"content-type": kind})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (413, "too_large")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == body["request_id"]


def test_a_file_over_the_limit_is_refused_by_row(
    client: httpx2.Client, pictures: list[bytes]
) -> None:
    files = [("files", ("a.jpg", pictures[0])), ("files", ("b.jpg", b"\xff\xd8\xff" * 400_000))]
    problem = client.post("/jobs", files=files).json()
    assert [(found["index"], found["id"]) for found in problem["problems"]] == [(1, "b.jpg")]
    assert "1000000" in problem["problems"][0]["detail"]


def test_results_can_be_read_while_the_job_runs(client: httpx2.Client) -> None:
    held = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=jpeg(1))

    with Site({"/fast.jpg": gives(jpeg(2)), "/slow.jpg": hold}) as local:
        urls = [local.url("/fast.jpg")] * 3 + [local.url("/slow.jpg")]
        job = client.post("/jobs", json={"urls": urls}).json()
        running: dict[str, Any] = {}

        def only_the_last_one_runs() -> bool:
            # It may be a chunk of its own, which a thread claims once it is free.
            running.update(client.get(job["links"]["self"]).json())
            counts = running["counts"]
            return (counts["succeeded"], counts["running"]) == (3, 1)

        assert eventually(only_the_last_one_runs), running
        assert [result["index"] for result in all_results(client, job)] == [0, 1, 2]
        assert running["status"] == "running"
        local.call(held.set)
        assert wait_done(client, job)["counts"]["succeeded"] == 4


def test_a_cancelled_job_stops_and_keeps_its_results(client: httpx2.Client) -> None:
    held = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=jpeg(1))

    with Site({"/slow.jpg": hold}) as local:
        job = client.post("/jobs", json={"urls": [local.url("/slow.jpg")] * 600}).json()
        while not client.get(job["links"]["self"]).json()["counts"]["running"]:
            pass
        answer = client.post(job["links"]["cancel"])
        assert answer.status_code == 202
        assert answer.json()["status"] == "cancelling"
        local.call(held.set)
        done = wait_done(client, answer.json())
    assert done["status"] == "cancelled"
    counts = done["counts"]
    assert counts["cancelled"] > 0
    assert counts["succeeded"] + counts["failed"] + counts["cancelled"] == 600
    assert len(all_results(client, job)) == counts["succeeded"] + counts["failed"]


def test_a_deleted_job_is_gone(client: httpx2.Client, pictures: list[bytes]) -> None:
    job = client.post("/jobs", files=[("files", ("a.jpg", pictures[0]))]).json()
    assert client.delete(job["links"]["self"]).status_code == 204
    for method, path in [
        ("GET", ""),
        ("GET", "/results"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ]:
        answer = client.request(method, job["links"]["self"] + path)
        assert answer.status_code == 404
        assert answer.json()["code"] == "job_not_found"


@pytest.mark.parametrize("cursor", ["x", "aW5kZXg6LTE=", "Zm9vOjE=", "é"])
def test_an_invalid_cursor_is_refused(client: httpx2.Client, site: Site, cursor: str) -> None:
    job = client.post("/jobs", json={"urls": [site.url("/1.jpg")]}).json()
    answer = client.get(job["links"]["results"], params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor_invalid")


def test_a_full_queue_refuses_new_work(tmp_path: Path) -> None:
    from scripts.local.stack import Stack

    limits = {"PIQUEUE_MAX_BACKLOG_ITEMS": "5"}
    with (
        Stack(tmp_path, env=limits) as small,
        httpx2.Client(base_url=small.url, timeout=60) as client,
    ):
        answer = client.post("/jobs", json={"urls": ["http://h/"] * 6})
    assert answer.status_code == 503
    assert answer.json()["code"] == "queue_full"
    assert int(answer.headers["retry-after"]) > 0


def test_a_full_disk_refuses_uploads_and_no_urls(tmp_path: Path) -> None:
    from scripts.local.stack import Stack

    env = {"PIQUEUE_STORAGE_RESERVE_BYTES": str(10**15)}
    with (
        Stack(tmp_path, workers=0, env=env) as full,
        httpx2.Client(base_url=full.url, timeout=60) as client,
    ):
        refused = client.post("/jobs", files=[("files", ("a.jpg", jpeg(1)))])
        accepted = client.post("/jobs", json={"urls": ["http://h/"]})
        room = client.get("/limits").json()["upload_room_bytes"]
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert "PIQUEUE_STORAGE_RESERVE_BYTES" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert accepted.status_code == 202
    assert room == 0


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/jobs?statu=failed", "there is no parameter 'statu' here: use status, search"),
        ("GET", "/jobs/{id}?x=1", "there is no parameter 'x' here: use results, wait"),
        ("GET", "/jobs/{id}/results?treshold=1", "there is no parameter 'treshold' here: use"),
        ("GET", "/jobs/{id}/webhook?x=1", "there is no parameter 'x' here: remove it"),
        ("GET", "/jobs/{id}/results?label=a&label=b", "the parameter label is there twice"),
        (
            "GET",
            "/jobs/{id}/results?above=a:0.5&above=b:0.5&top_k=1&top_k=2",
            "the parameter top_k",
        ),
        ("POST", "/jobs/{id}/cancel?x=1", "there is no parameter 'x' here: remove it"),
        ("POST", "/jobs/{id}/retry?only=failed", "there is no parameter 'only' here: remove it"),
        ("DELETE", "/jobs/{id}?x=1", "there is no parameter 'x' here: remove it"),
        ("POST", "/jobs?name=x", "the URL has the parameter name: send options in the body"),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(
    method: str, path: str, says: str, client: httpx2.Client
) -> None:
    body = {"urls": ["http://127.0.0.1:9/"]}
    job = client.post("/jobs", json=body).json()
    refused = client.request(
        method, path.format(id=job["id"]), json=body if method == "POST" else None
    )
    assert (refused.status_code, refused.json()["detail"][: len(says)]) == (422, says)


def test_a_parameter_of_a_table_that_is_there_twice_is_refused(client: httpx2.Client) -> None:
    row = "a,b\nhttp://127.0.0.1:9/,http://127.0.0.1:9/\n"
    refused = client.post(
        "/jobs?url_column=a&url_column=b", content=row, headers={"content-type": "text/csv"}
    )
    assert refused.status_code == 422
    assert refused.json()["detail"] == "the parameter url_column is there twice: give it once"


@pytest.mark.parametrize("parameter", ["url_column", "id_column"])
def test_a_column_of_ndjson_which_has_none_is_refused(
    client: httpx2.Client, parameter: str
) -> None:
    refused = client.post(
        f"/jobs?{parameter}=a",
        content='{"url": "http://127.0.0.1:9/"}',
        headers={"content-type": "application/x-ndjson"},
    )
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(f"{parameter}: is not known: remove it")


def test_items_of_a_draft_without_urls_or_items_are_refused(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    refused = client.post(f"/jobs/{draft['id']}/items", json={})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "the body has no pictures: give urls or items"


def test_options_of_items_are_refused(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    row = "url\nhttp://127.0.0.1:9/\n"
    refused = client.post(
        f"/jobs/{draft['id']}/items?name=x", content=row, headers={"content-type": "text/csv"}
    )
    assert refused.status_code == 422
    assert "items have the option name: give options when you create" in refused.json()["detail"]
