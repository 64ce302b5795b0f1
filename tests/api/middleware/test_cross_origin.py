"""Cross-origin requests (CORS)."""

from collections.abc import Iterator

import httpx2
import pytest

from scripts.local.stack import Stack
from tests.conftest import STACK_ENV

APP = "https://app.example.com"
OTHER = "https://other.example.com"


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Give a client of an API without keys that pages of one other site may use."""
    env = {**STACK_ENV, "PIQUEUE_CORS_ORIGINS": APP}
    with (
        Stack(tmp_path_factory.mktemp("cors"), workers=0, env=env) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        yield client


def preflight(client: httpx2.Client, origin: str) -> httpx2.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, prefer",
    }
    return client.options("/jobs", headers=headers)


def submitted(client: httpx2.Client, origin: str) -> httpx2.Response:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    return client.post("/jobs", json={"urls": ["http://127.0.0.1:9/"]}, headers=headers)


def test_no_origin_is_allowed_by_default(client: httpx2.Client) -> None:
    for answer in (preflight(client, APP), client.get("/jobs", headers={"Origin": APP})):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert submitted(client, APP).status_code == 403


def test_pages_of_an_allowed_origin_use_the_api(open_client: httpx2.Client) -> None:
    answer = preflight(open_client, APP)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in answer.headers
    answer = submitted(open_client, APP)
    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == APP
    assert "Location" in answer.headers["access-control-expose-headers"]
    missing = open_client.get("/jobs/job_1", headers={"Origin": APP})
    assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (404, APP)


def test_pages_of_other_origins_do_not(open_client: httpx2.Client) -> None:
    assert preflight(open_client, OTHER).status_code == 400
    answer = submitted(open_client, OTHER)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
