"""An API behind a reverse proxy: path prefixes, forwarded headers, idle connections."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from api.middleware.proxies import BehindProxy
from scripts.local.stack import Stack, listenable_port
from scripts.local.supervised_process import SupervisedProcess
from tests.api.polling import wait_done
from tests.api.reverse_proxy import ReverseProxy
from tests.browser import unavailable
from tests.conftest import STACK_ENV
from tests.documents import block_of
from tests.pictures import jpeg

# Uvicorn closes idle connections after 5 s by default, balancers after 60 s.
IDLE_S = 6
# All that nginx needs beside the block of OPERATIONS.md, so that any user can run it.
NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""


@pytest.fixture(scope="module")
def prefixed_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack that knows its prefix and trusts no proxy."""
    env = {**STACK_ENV, "PIQUEUE_ROOT_PATH": "/pq", "PIQUEUE_TRUSTED_PROXIES": ""}
    with Stack(tmp_path_factory.mktemp("prefixed"), env=env) as stack:
        yield stack


@contextmanager
def nginx(folder: Path, location: str) -> Iterator[str]:
    """Run nginx with a block of its settings; gives its address."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        unavailable("the settings of nginx in OPERATIONS.md: install nginx")
    port = listenable_port("127.0.0.1", 0)
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(port=port, location=location))
    command = [program, "-p", str(folder), "-c", str(settings)]
    process = SupervisedProcess(command, folder / "nginx.log")
    process.start()
    try:
        process.wait_until((folder / "nginx.pid").exists, 60, "nginx")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop(grace_s=5)


def check_all_addresses(url: str) -> None:
    """Check that every address that the API returns leads back to it through a proxy at `/pq`."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        files = [("files", (name, jpeg(seed))) for seed, name in enumerate("ab")]
        answer = client.post("/pq/jobs", files=[*files, ("files", ("c", b"no picture"))])
        assert answer.status_code == 422
        answer = client.post("/pq/jobs", json={"urls": ["http://127.0.0.1:9/a.jpg"]})
        assert answer.headers["location"] == f"/pq/jobs/{answer.json()['id']}"
        done = wait_done(client, client.get(answer.headers["location"]).raise_for_status().json())
        for link in ("self", "results", "events"):
            assert done["links"][link].startswith(answer.headers["location"])
            assert client.get(done["links"][link]).status_code == 200
        assert client.post(done["links"]["cancel"]).status_code == 202
        (listed, *_) = client.get("/pq/jobs").json()["jobs"]
        assert listed["links"] == done["links"]
        assert '"/pq/jobs/' in client.get(done["links"]["events"]).text
        retried = client.post(f"{answer.headers['location']}/retry")
        assert client.get(retried.headers["location"]).json()["parent_job"] == done["id"]

        redirect = client.get("/pq/jobs/?status=failed")
        assert redirect.status_code == 307
        assert redirect.headers["location"] == "/pq/jobs?status=failed"
        document = client.get("/pq/openapi.json").json()
        assert document["servers"] == [{"url": "/pq"}]
        assert "/jobs" in document["paths"]
        assert client.get("/pq/nothing").status_code == 404
        assert client.get("/jobs").status_code == 404


def test_nginx_with_the_documented_settings_names_the_prefix_that_it_removes(
    stack: Stack, tmp_path: Path
) -> None:
    documented = block_of("OPERATIONS.md", "proxy_pass http://127.0.0.1:8000/;").text
    location = documented.replace("http://127.0.0.1:8000", stack.url).replace("/piqueue", "/pq")
    with nginx(tmp_path, location) as url:
        check_all_addresses(url)


@pytest.mark.parametrize("removes", [True, False])
def test_a_setting_names_the_prefix_and_other_prefixes_do_not_count(
    prefixed_stack: Stack, removes: bool
) -> None:
    headers = {"X-Forwarded-Prefix": "/evil"}
    with ReverseProxy(prefixed_stack.url, "/pq", headers, removes) as proxy:
        check_all_addresses(proxy.url(""))


def test_the_page_of_a_prefix_without_its_slash_redirects_to_it(prefixed_stack: Stack) -> None:
    answer = httpx2.get(f"{prefixed_stack.url}/pq", timeout=60)
    assert (answer.status_code, answer.headers["location"]) == (307, "/pq/")
    for path in ("/healthz", "/pq/healthz"):
        assert httpx2.get(f"{prefixed_stack.url}{path}", timeout=60).status_code == 200


def passed_on(peer: str, headers: dict[str, str], prefix: str = "", path: str = "/x") -> Scope:
    """Return the scope of a request from `peer` as `BehindProxy` passes it on."""
    passed: Scope = {}

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        passed.update(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    networks = [ip_network("10.0.0.0/8"), ip_network("::1")]
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "path": path,
        "client": (peer, 4000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(BehindProxy(app, prefix, networks)(scope, receive, send))
    return passed


FORWARDED = {
    "X-Forwarded-For": "198.51.100.7, 10.0.0.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/pq",
}


@pytest.mark.parametrize("peer", ["10.1.2.3", "::1"])
def test_forwarded_headers_of_trusted_proxies_count(peer: str) -> None:
    scope = passed_on(peer, FORWARDED)
    # An entry that a client writes stands before the one that the first trusted proxy adds.
    assert scope["client"][0] == "198.51.100.7"
    assert (scope["scheme"], scope["root_path"], scope["path"]) == ("https", "/pq", "/pq/x")


@pytest.mark.parametrize("peer", ["192.0.2.1", "11.0.0.1", "::2"])
def test_forwarded_headers_of_others_do_not_count(peer: str) -> None:
    scope = passed_on(peer, FORWARDED)
    assert scope["client"] == (peer, 4000)
    assert (scope["scheme"], scope["root_path"], scope["path"]) == ("http", "", "/x")


@pytest.mark.parametrize(
    ("forwarded", "prefix"),
    [
        ("/a, /b/", "/a/b"),
        ("/", ""),
        ("", ""),
        ("pq", ""),
        ("//evil.example", ""),
        ("/%2e", ""),
        ("https://evil.example/", ""),
        ("/pq\n", "/pq"),
        ('/"><script>', ""),
        ("/a?b", ""),
        (f"/{'a' * 200}", ""),
    ],
)
def test_a_forwarded_prefix_is_a_plain_path(forwarded: str, prefix: str) -> None:
    scope = passed_on("10.1.2.3", {"X-Forwarded-Prefix": forwarded})
    assert (scope["root_path"], scope["path"]) == (prefix, f"{prefix}/x")


def test_a_forwarded_prefix_is_always_one_that_was_removed() -> None:
    scope = passed_on("10.1.2.3", {"X-Forwarded-Prefix": "/pq"}, path="/pq/metrics")
    assert scope["path"] == "/pq/pq/metrics"


def test_an_idle_connection_is_kept(stack: Stack) -> None:
    connection = HTTPConnection(urlsplit(stack.url).netloc, timeout=60)
    with closing(connection):
        for idle_s in (IDLE_S, 0):
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
            time.sleep(idle_s)
