"""HEAD and OPTIONS, and the methods that a path allows."""

import httpx2
import pytest

from tests.api.polling import wait_done
from tests.pictures import jpeg

# What differs between two answers to the same request.
VARYING = {"date", "x-request-id", "content-length", "transfer-encoding"}


def test_head_has_the_headers_of_get_wherever_there_is_get(client: httpx2.Client) -> None:
    files = [("files", ("a.jpg", jpeg(1)))]
    job = wait_done(client, client.post("/jobs", files=files).json())
    draft = client.post("/jobs", json={"draft": True}).json()
    paths = client.get("/openapi.json").json()["paths"]
    named = {"job_id": job["id"], "index": 0, "reference": "scenes"}
    targets = [path.format(**named) for path in paths if "get" in paths[path]]
    assert len(targets) > 10
    targets += ["/", "/docs", "/openapi.json", "/metrics", f"/jobs/{draft['id']}/items"]
    targets += [f"{job['links']['results']}?format={form}" for form in ("jsonl", "csv", "parquet")]
    for target in targets:
        head, get = client.head(target), client.get(target)
        assert head.status_code == get.status_code, target
        assert head.content == b""
        assert ("content-length" in head.headers) == ("content-length" in get.headers)
        kept = [{*answer.headers.items()} for answer in (head, get)]
        differing = {name for name, _ in kept[0] ^ kept[1]}
        assert differing <= VARYING, target


def test_the_body_of_a_head_is_never_made(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    # GET would last until the draft is submitted.
    answer = client.head(draft["links"]["events"])
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/jobs", "GET, POST, HEAD, OPTIONS"),
        ("/jobs/job_1", "GET, DELETE, HEAD, OPTIONS"),
        ("/jobs/job_1/cancel", "POST, OPTIONS"),
        ("/scorefile/", "POST, OPTIONS"),
    ],
)
def test_options_lists_the_methods_of_a_path(client: httpx2.Client, path: str, allow: str) -> None:
    answer = client.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, allow)
    assert "access-control-allow-origin" not in answer.headers
    refused = client.put(path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allow)
    assert refused.json()["code"] == "method_not_allowed"
    assert refused.json()["detail"] == f"the path {path!r} has no PUT: use {allow}"


def test_options_of_an_unknown_path_is_404(client: httpx2.Client) -> None:
    answer = client.options("/nothing")
    told = (answer.status_code, answer.json()["detail"])
    assert told == (404, "this API has no path '/nothing': see /docs for those that it has")


def test_head_is_counted_as_head(client: httpx2.Client) -> None:
    client.head("/models")
    counted = 'piqueue_http_requests_total{method="HEAD",route="/models",status="200"}'
    assert counted in client.get("/metrics").text
