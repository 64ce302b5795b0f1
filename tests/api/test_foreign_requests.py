"""An API without keys, and requests that a web page of another site may have sent."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis
from starlette.datastructures import Headers

from api.foreign_requests import foreign_reason
from scripts.local.stack import Stack
from tests.api.test_auth import ROUTES
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from worker.jobs.ledger.api_keys import KeyStore

LOCAL = {"host": "127.0.0.1:8000"}
# The bodies that a form of any site can send.
FORMS: tuple[dict[str, Any], ...] = (
    {"data": {"draft": "true"}},
    {"files": {"files": ("a.jpg", jpeg(1)), "file": ("a.jpg", jpeg(1))}},
    {"content": b'{"draft": true}'},
)


@pytest.mark.parametrize(
    ("method", "headers", "allowed_hosts"),
    [
        ("POST", LOCAL, ()),
        ("POST", {"host": "localhost"}, ()),
        ("POST", {"host": "piqueue.localhost:8000"}, ()),
        ("POST", {"host": "[::1]:8000"}, ()),
        ("POST", {"host": "192.0.2.7"}, ()),
        ("OPTIONS", {}, ()),  # as a load balancer checks a server in HTTP/1.0
        ("POST", {"host": "piqueue.example"}, ("piqueue.example",)),
        ("POST", {"host": "Piqueue.Example:8000"}, ("piqueue.example",)),
        ("POST", {"host": "any.example"}, None),
        ("POST", LOCAL | {"origin": "http://127.0.0.1:8000"}, ()),
        ("POST", LOCAL | {"origin": "https://piqueue.example"}, ("piqueue.example",)),
        ("POST", LOCAL | {"sec-fetch-site": "same-origin"}, ()),
        ("POST", LOCAL | {"sec-fetch-site": "none"}, ()),
        ("GET", LOCAL | {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, ()),
    ],
)
def test_requests_of_this_machine_are_accepted(
    method: str, headers: dict[str, str], allowed_hosts: Collection[str] | None
) -> None:
    assert foreign_reason(method, Headers(headers), allowed_hosts) is None


@pytest.mark.parametrize(
    ("method", "headers", "allowed_hosts"),
    [
        ("GET", {"host": "evil.example:8000"}, ()),
        ("GET", {"host": "evil.example"}, ("piqueue.example",)),
        ("GET", {"host": "localhost.evil.example"}, ()),
        ("GET", {"host": "127.0.0.1.evil.example"}, ()),
        ("GET", {"host": "[::1"}, ()),
        ("GET", {"host": ""}, ()),
        ("DELETE", LOCAL | {"origin": "https://evil.example"}, ()),
        ("POST", LOCAL | {"origin": "http://127.0.0.1:9000"}, ()),
        ("POST", LOCAL | {"origin": "http://localhost:8000"}, ()),
        ("POST", LOCAL | {"origin": "null"}, ()),
        ("POST", LOCAL | {"origin": "http://[::1"}, ()),
        ("POST", LOCAL | {"sec-fetch-site": "cross-site"}, ()),
        ("POST", LOCAL | {"sec-fetch-site": "same-site"}, ()),
        ("POST", {"host": "any.example", "origin": "https://evil.example"}, None),
    ],
)
def test_requests_that_another_site_may_have_sent_are_refused(
    method: str, headers: dict[str, str], allowed_hosts: Collection[str] | None
) -> None:
    assert foreign_reason(method, Headers(headers), allowed_hosts) is not None


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack without keys that is also called piqueue.example."""
    env = {**STACK_ENV, "PIQUEUE_ALLOWED_HOSTS": "piqueue.example"}
    with Stack(tmp_path_factory.mktemp("own_stack"), workers=0, env=env) as stack:
        yield stack


def test_an_api_without_keys_refuses_what_other_sites_send(own_stack: Stack) -> None:
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    with httpx2.Client(base_url=own_stack.url, timeout=60) as client:
        secret = client.get("/webhooks/secret").raise_for_status().json()
        job = client.post("/jobs", json={"urls": ["http://127.0.0.1:9/"]}).raise_for_status().json()
        path = job["links"]["self"]
        for (method, route), scope in ROUTES.items():
            target = route.format(job_id=job["id"], index=0, reference="scenes")
            # What a form can send, some browsers without one of the two headers.
            for sent in (foreign, *({name: value} for name, value in foreign.items())):
                if method == "GET":
                    continue
                for form in FORMS:
                    answer = client.request(method, target, headers=sent, **form)
                    refused = (answer.status_code, answer.json()["code"])
                    assert refused == (403, "foreign_request"), target
                    assert answer.headers["content-type"] == "application/problem+json"
            if scope is not None:
                answer = client.request(method, target, headers={"Host": "evil.example"})
                assert (answer.status_code, answer.json()["code"]) == (403, "foreign_request")
        for target in ("/jobs", path, "/webhooks/secret", "/limits", "/metrics"):
            named = {"Host": "piqueue.example"}
            assert client.get(target, headers=named).status_code == 200, target
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 200
        assert client.get("/webhooks/secret").json() == secret
        assert client.get(path).json()["status"] == "queued"


def test_a_key_is_enough_for_any_host_and_origin(tmp_path: Path) -> None:
    with (
        Stack(tmp_path, workers=0, env=STACK_ENV) as stack,
        Redis.from_url(stack.redis_url) as redis,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        key = KeyStore(redis).add("alice")
        headers = {
            "Authorization": f"Bearer {key}",
            "Host": "piqueue.example",
            "Origin": "https://other.example",
            "Sec-Fetch-Site": "cross-site",
        }
        assert client.post("/webhooks/secret/rotate", headers=headers).status_code == 200
