"""Headers that limit what a browser does with a response."""

import asyncio
import socket
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

from api import errors
from api.middleware.security_headers import page_policy
from scripts.local.stack import Stack

JOB = {"urls": ["http://127.0.0.1:9/a.jpg"]}


def check(answer: httpx2.Response) -> None:
    """Check that no page of another site can frame, sniff or read the response."""
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/files/swagger-ui.css", 200),
        ("GET", "/docs/files/nothing", 404),
        ("GET", "/openapi.json", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/jobs", 200),
        ("GET", "/jobs/", 307),
        ("GET", "/jobs?limit=0", 422),
        ("GET", "/jobs/job_1", 404),
        ("GET", "/redoc", 404),
        ("PUT", "/jobs", 405),
        ("OPTIONS", "/jobs", 204),
        ("HEAD", "/", 200),
        ("POST", "/scorefile/", 422),
    ],
)
def test_every_answer_has_them(client: httpx2.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    check(answer)


def test_downloads_streams_and_empty_answers_have_them(client: httpx2.Client) -> None:
    job = client.post("/jobs", json=JOB)
    check(job)
    links = job.json()["links"]
    check(client.get(links["results"], params={"format": "csv"}))
    check(client.get(links["events"]))
    deleted = client.delete(links["self"])
    assert deleted.status_code == 204
    check(deleted)


def test_the_answer_to_what_is_no_request_has_them(stack: Stack) -> None:
    address = urlsplit(stack.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"no request\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 400
        check(httpx2.Response(answer.status, headers=answer.getheaders()))


def test_an_unexpected_error_has_them() -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/")
    def broken() -> None:
        raise ZeroDivisionError

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    check(answer)


def test_a_policy_allows_each_inline_script_by_its_hash() -> None:
    html = "<script>one</script><script src=x></script><script>two</script>"
    rules = page_policy(html, images="data:").split("; ")
    # printf one | openssl dgst -sha256 -binary | base64
    one, two = (
        "dpLDrTVAu4A8Ags67mbNiIcSMjTqDG5xQ8Ct1z/0Me0=",
        "P8TM/nRYcOLA2Z9x8w/wZWyN7dQcwdfT03aw2+aF4vM=",
    )
    assert f"script-src 'sha256-{one}' 'sha256-{two}'" in rules
    assert "style-src 'none'" in rules
    assert "img-src data:" in rules
