"""Fetching from real local servers; tests dial loopback addresses only."""

import asyncio
import gc
import gzip
import itertools
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from email.utils import formatdate
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from scripts.local.stack import listenable_port
from tests.worker.fetching.site import Answer, Site
from worker.fetching.budget import ByteBudget, Share
from worker.fetching.downloads import Downloads
from worker.fetching.fetcher import Fetcher
from worker.fetching.session import BACKOFF_S, FetchLimits, Outcome, open_session
from worker.jobs.items import Rejection, RejectionCode

LIMITS = FetchLimits(
    timeout_s=10,
    max_bytes=100_000,
    concurrency=32,
    per_host=32,
    allow_networks=(ip_network("127.0.0.1/32"),),
)
GUARDED = replace(LIMITS, allow_networks=())
CERTIFICATE = Path(__file__).with_name("self_signed.pem")
PATIENCE_S = 10
# A machine may stand still for this long; what must not time out meanwhile has more time.
STALLED_S = 3


@contextmanager
def fetching(
    limits: FetchLimits = LIMITS, resolver: AbstractResolver | None = None
) -> Iterator[Fetcher]:
    fetcher = Fetcher(limits, resolver)
    try:
        yield fetcher
    finally:
        fetcher.close()


def fetch(
    url: str, limits: FetchLimits = LIMITS, resolver: AbstractResolver | None = None
) -> Outcome:
    with fetching(limits, resolver) as fetcher:
        [(position, outcome)] = fetcher.fetch_all([url])
    assert position == 0
    return outcome


def failed(outcome: Outcome) -> Rejection:
    assert isinstance(outcome.payload, Rejection)
    return outcome.payload


def payload(outcome: Outcome) -> bytes:
    assert isinstance(outcome.payload, bytes)
    return outcome.payload


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def answering(
    status: int = 200, body: bytes = b"body", headers: dict[str, str] | None = None
) -> Answer:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return answer


def redirecting(location: str) -> Answer:
    return answering(302, headers={"Location": location})


async def hang(request: web.BaseRequest) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


class Names(AbstractResolver):
    """Resolves `<name>.example` to its next list of addresses, and to the last one from then on.

    An errno instead of a list fails as the system's resolver does.
    """

    def __init__(self, **names: list[list[str] | int]) -> None:
        self.names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answers = self.names[host.removesuffix(".example")]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(addresses, int):
            raise socket.gaierror(addresses, "from the test")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        pass


# ---- Outcomes and their positions


def test_a_url_gives_its_bytes() -> None:
    with Site({"/a.jpg": answering(body=b"\xff\xd8 picture")}) as site:
        outcome = fetch(site.url("/a.jpg"))
    assert payload(outcome) == b"\xff\xd8 picture"
    assert 0 <= outcome.elapsed_ms < PATIENCE_S * 1000


def test_no_urls_give_no_outcomes() -> None:
    with fetching() as fetcher:
        assert list(fetcher.fetch_all([])) == []


def test_outcomes_come_as_they_arrive_and_keep_their_positions() -> None:
    gates = [threading.Event() for _ in range(4)]

    async def gated(request: web.BaseRequest) -> web.Response:
        await asyncio.to_thread(gates[int(request.path[1:])].wait, PATIENCE_S)
        return web.Response(text=request.path)

    with Site({f"/{n}": gated for n in range(4)}) as site, fetching() as fetcher:
        outcomes = fetcher.fetch_all([site.url(f"/{n}") for n in range(4)])
        for n in (2, 0, 3, 1):
            gates[n].set()
            position, outcome = next(outcomes)
            assert (position, payload(outcome)) == (n, b"/%d" % n)
        assert list(outcomes) == []


def test_the_same_url_twice_gives_two_outcomes() -> None:
    with Site() as site, fetching() as fetcher:
        outcomes = dict(fetcher.fetch_all([site.url("/a"), site.url("/b"), site.url("/a")]))
    assert {n: payload(outcome) for n, outcome in outcomes.items()} == {
        0: b"/a",
        1: b"/b",
        2: b"/a",
    }


def test_good_and_bad_urls_in_one_call_keep_their_positions() -> None:
    with Site({"/gone": answering(410)}) as site, fetching() as fetcher:
        urls = [site.url("/gone"), site.url("/a"), "ftp://files.example/x", site.url("/b")]
        outcomes = dict(fetcher.fetch_all(urls))
    assert failed(outcomes[0]).code == RejectionCode.FETCH_HTTP_STATUS
    assert payload(outcomes[1]) == b"/a"
    assert failed(outcomes[2]).code == RejectionCode.FETCH_BLOCKED_ADDRESS
    assert payload(outcomes[3]) == b"/b"


def test_several_threads_share_a_fetcher_and_get_their_own_outcomes() -> None:
    with Site() as site, fetching(replace(LIMITS, concurrency=5)) as fetcher:
        results: dict[int, dict[int, bytes]] = {}

        def chunk(thread: int) -> None:
            urls = [site.url(f"/{thread}/{n}") for n in range(40)]
            results[thread] = {n: payload(o) for n, o in fetcher.fetch_all(urls)}

        threads = [threading.Thread(target=chunk, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {t: {n: b"/%d/%d" % (t, n) for n in range(40)} for t in range(4)}
    assert site.most_open <= 5


# ---- What is sent


def test_requests_name_piqueue_and_send_no_cookies_back() -> None:
    setting = answering(headers={"Set-Cookie": "session=1"})
    with Site({"/set": setting}) as site, fetching() as fetcher:
        for path in ("/set", "/next"):
            list(fetcher.fetch_all([site.url(path)]))
    assert all(seen.headers["User-Agent"].startswith("Piqueue") for seen in site.requests)
    assert "Cookie" not in site.requests[1].headers


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/a%2Fb%7E~?sig=a%2Bb%3D+c&x=%c3%bc#fragment", "/a%2Fb%7E~?sig=a%2Bb%3D+c&x=%c3%bc"),
        ("/a b?x=ü|", "/a%20b?x=%C3%BC%7C"),
    ],
)
def test_a_url_is_sent_unchanged_unless_it_needs_quoting(target: str, sent: str) -> None:
    with Site() as site:
        payload(fetch(site.url(target)))
    assert site.requests[0].target == sent


def test_proxies_from_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as site, Site() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        monkeypatch.delenv("no_proxy", raising=False)
        payload(fetch(site.url()))
    assert len(site.requests) == 1
    assert proxy.requests == []


def test_connections_are_reused() -> None:
    with Site() as site, fetching() as fetcher:
        for n in range(20):
            list(fetcher.fetch_all([site.url(f"/{n}")]))
    assert len(site.requests) == 20
    assert len({seen.connection for seen in site.requests}) == 1


# ---- Bodies and statuses


def test_the_content_type_is_ignored() -> None:
    page = answering(body=b"<html>", headers={"Content-Type": "text/html"})
    with Site({"/a.jpg": page}) as site:
        assert payload(fetch(site.url("/a.jpg"))) == b"<html>"


def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    with Site({"/": answering(body=bytes(LIMITS.max_bytes))}) as site:
        assert payload(fetch(site.url())) == bytes(LIMITS.max_bytes)


def test_a_content_length_over_the_limit_is_refused_before_the_body() -> None:
    async def promise(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(LIMITS.max_bytes + 1)})
        await response.prepare(request)
        return await hang(request)

    with Site({"/": promise}) as site:
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_TOO_LARGE, False)
    assert outcome.detail == "larger than 100,000 bytes"


def test_a_stream_over_the_limit_is_closed() -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(10_000))

    with Site({"/": endless}) as site:
        assert failed(fetch(site.url())).code == RejectionCode.FETCH_TOO_LARGE
        wait_until(lambda: site.open == 0)


def test_compressed_bodies_are_unpacked() -> None:
    packed = answering(body=gzip.compress(b"picture"), headers={"Content-Encoding": "gzip"})
    with Site({"/": packed}) as site:
        assert payload(fetch(site.url())) == b"picture"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip", "deflate", "gzip, br", "utf-8"])
def test_a_picture_with_a_wrong_content_encoding_is_fetched_as_it_is(encoding: str) -> None:
    picture = b"\xff\xd8\xff" + bytes(range(256))
    with Site({"/": answering(body=picture, headers={"Content-Encoding": encoding})}) as site:
        assert payload(fetch(site.url())) == picture


def test_the_limit_counts_decompressed_bytes() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < LIMITS.max_bytes
    with Site({"/": answering(body=bomb, headers={"Content-Encoding": "gzip"})}) as site:
        assert failed(fetch(site.url())).code == RejectionCode.FETCH_TOO_LARGE


@pytest.mark.parametrize("status", [403, 404, 410, 501])
def test_a_permanent_status_is_not_retried(status: int) -> None:
    with Site({"/": answering(status)}) as site:
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_HTTP_STATUS, False)
    assert outcome.detail == f"answered {status}"
    assert len(site.requests) == 1


# ---- Retries


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_transient_status_is_retried_twice(status: int) -> None:
    with Site({"/": answering(status)}) as site:
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_HTTP_STATUS, True)
    assert outcome.detail == f"answered {status}"
    assert len(site.requests) == 3


@pytest.mark.parametrize("status", [200, 204])
def test_an_empty_answer_says_so_and_is_retried(status: int) -> None:
    with Site({"/": answering(status, body=b"")}) as site:
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.NOT_AN_IMAGE, True)
    assert outcome.detail == f"answered {status} with an empty body"
    assert len(site.requests) == 3


def test_a_store_that_is_behind_loses_no_item() -> None:
    bodies = iter([b"", b"picture"])

    async def behind(request: web.BaseRequest) -> web.Response:
        return web.Response(body=next(bodies))

    with Site({"/": behind}) as site:
        assert payload(fetch(site.url())) == b"picture"


def test_a_server_that_recovers_loses_no_item() -> None:
    statuses = iter([500, 503, 200])

    async def recovering(request: web.BaseRequest) -> web.Response:
        return web.Response(status=next(statuses), text="picture")

    with Site({"/": recovering}) as site:
        assert payload(fetch(site.url())) == b"picture"


def test_retries_of_items_that_failed_together_are_spread_out() -> None:
    asked: dict[str, list[float]] = {}

    async def down(request: web.BaseRequest) -> web.Response:
        asked.setdefault(request.path, []).append(time.monotonic())
        return web.Response(status=500)

    paths = [f"/{n}" for n in range(20)]
    with Site(dict.fromkeys(paths, down)) as site, fetching() as fetcher:
        # Without jitter no pause would be shorter than this, on any machine.
        def some_are_sooner() -> bool:
            asked.clear()
            list(fetcher.fetch_all([site.url(path) for path in paths]))
            return any(third - second < 2 * BACKOFF_S for _, second, third in asked.values())

        wait_until(some_are_sooner)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_delays_the_retry(form: str) -> None:
    times: list[float] = []

    async def busy(request: web.BaseRequest) -> web.Response:
        times.append(time.time())
        if len(times) == 2:
            return web.Response(text="picture")
        header = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return web.Response(status=429, headers={"Retry-After": header})

    with Site({"/": busy}) as site:
        assert payload(fetch(site.url())) == b"picture"
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("header", ["3600", "9" * 400, "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_retry_after_beyond_the_deadline_ends_at_once(header: str) -> None:
    with Site({"/": answering(429, headers={"Retry-After": header})}) as site:
        outcome = fetch(site.url())
    rejection = failed(outcome)
    assert (rejection.code, rejection.retryable) == (RejectionCode.FETCH_HTTP_STATUS, True)
    assert len(site.requests) == 1
    assert outcome.elapsed_ms < LIMITS.timeout_s * 1000


def test_an_unexpected_error_fails_only_its_own_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_header: str) -> float:
        raise RuntimeError("a bug")

    monkeypatch.setattr("worker.fetching.downloads.retry_after_s", broken)
    answers = {"/odd": answering(503, headers={"Retry-After": "1"})}
    with Site(answers) as site, fetching() as fetcher:
        outcomes = dict(fetcher.fetch_all([site.url("/a"), site.url("/odd"), site.url("/b")]))
    assert failed(outcomes[1]).code == RejectionCode.FETCH_CONNECTION
    assert "RuntimeError" in failed(outcomes[1]).detail
    assert [payload(outcomes[0]), payload(outcomes[2])] == [b"/a", b"/b"]


@pytest.mark.parametrize(
    "header",
    [
        *("soon", "-1", "", "1e3", "Mon, 99 Foo 2026 00:00:00 GMT"),
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    ],
)
def test_an_invalid_retry_after_is_ignored(header: str) -> None:
    with Site({"/": answering(503, headers={"Retry-After": header})}) as site:
        assert failed(fetch(site.url())).code == RejectionCode.FETCH_HTTP_STATUS
    assert len(site.requests) == 3


def test_an_interrupted_body_is_fetched_again() -> None:
    count = itertools.count()

    async def breaking(request: web.BaseRequest) -> web.StreamResponse:
        if next(count) == 2:
            return web.Response(text="picture")
        response = web.StreamResponse(headers={"Content-Length": "7"})
        await response.prepare(request)
        await response.write(b"pic")
        assert request.transport is not None
        request.transport.close()
        return response

    with Site({"/": breaking}) as site:
        assert payload(fetch(site.url())) == b"picture"


def test_a_connection_that_always_breaks_fails() -> None:
    async def drop(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with Site({"/": drop}) as site:
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_CONNECTION, True)


def test_a_refused_connection_fails() -> None:
    outcome = failed(fetch(f"http://127.0.0.1:{listenable_port('127.0.0.1', 0)}/"))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_CONNECTION, True)
    assert outcome.detail == "could not connect: connection refused"


@pytest.mark.parametrize(
    ("errno", "retryable"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)]
)
def test_a_name_that_does_not_resolve_fails(errno: int, retryable: bool) -> None:
    outcome = failed(fetch("http://photos.example/a.jpg", resolver=Names(photos=[errno])))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_DNS, retryable)


def test_an_impossible_name_fails() -> None:
    assert failed(fetch(f"http://a..{'b' * 64}.example/")).code == RejectionCode.FETCH_DNS


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Security-Policy": "default-src https://a.example " * 320},
        {f"X-H{number}": "1" for number in range(200)},
        {"Link": "x" * 60_000},
    ],
    ids=["policy", "many", "link"],
)
def test_an_answer_with_long_headers_is_read(headers: dict[str, str]) -> None:
    with Site({"/": answering(body=b"picture", headers=headers)}) as site:
        assert payload(fetch(site.url())) == b"picture"


def test_a_redirect_to_a_long_url_is_followed() -> None:
    with Site({"/": redirecting("/there#" + "x" * 9000)}) as site:
        assert payload(fetch(site.url())).startswith(b"/there")


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"Link": "x" * 70_000}, "longer than 65,536 bytes"),
        ({f"X-H{number}": "1" for number in range(300)}, "more than 256 headers"),
        ({"Content-Encoding": "br"}, "not asked for"),
        ({"Content-Encoding": "gzip"}, "nor compressed as its Content-Encoding says"),
    ],
    ids=["line", "many", "br", "gzip"],
)
def test_an_answer_that_is_http_and_not_read_says_why(headers: dict[str, str], detail: str) -> None:
    with Site({"/": answering(body=b"picture", headers=headers)}) as site:
        rejection = failed(fetch(site.url()))
        # A body that is not encoded as its header says is read once more, as it is.
        assert len(site.requests) == (2 if "Content-Encoding" in headers else 1)
    assert rejection.code == RejectionCode.FETCH_CONNECTION
    assert detail in rejection.detail
    assert not rejection.retryable


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00" * 64,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/9.9 999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnot gzip",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ],
)
def test_an_answer_that_is_not_http_fails_only_its_own_url(answer: bytes) -> None:
    def serve() -> None:
        with listener:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                # The fetcher may close it before it has all.
                with connection, suppress(ConnectionError):
                    connection.recv(65536)
                    connection.sendall(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Site() as site, fetching() as fetcher:
            urls = [f"http://127.0.0.1:{listener.getsockname()[1]}/", site.url("/neighbour")]
            outcomes = dict(fetcher.fetch_all(urls))
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert failed(outcomes[0]).code == RejectionCode.FETCH_CONNECTION
    assert payload(outcomes[1]) == b"/neighbour"


# ---- Hosts that push back


def allowing(count: int, period_s: float) -> Answer:
    """Answer `count` requests per period, and the others with 429 and a Retry-After."""
    began: list[float] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        now = time.monotonic()
        began[:] = [at for at in began if at > now - period_s]
        if len(began) >= count:
            return web.Response(status=429, headers={"Retry-After": "1"})
        began.append(now)
        return web.Response(text=request.path)

    return answer


def test_every_picture_of_a_host_with_a_rate_limit_is_fetched() -> None:
    paths = [f"/{n}" for n in range(40)]
    limits = replace(LIMITS, per_host=8)
    with Site(dict.fromkeys(paths, allowing(15, 1))) as site, fetching(limits) as fetcher:
        outcomes = dict(fetcher.fetch_all([site.url(path) for path in paths]))
    assert [payload(outcomes[n]).decode() for n in range(40)] == paths
    assert len(site.requests) <= 40 + 3 * limits.per_host, "too many requests were refused"


def test_a_host_that_pushes_back_gets_no_requests_from_any_item_of_the_process() -> None:
    answer = answering(429, headers={"Retry-After": "3600"})
    limits = replace(LIMITS, per_host=2)
    with Site({f"/{n}": answer for n in range(40)}) as site, fetching(limits) as fetcher:
        outcomes = dict(fetcher.fetch_all([site.url(f"/{n}") for n in range(40)]))
        later = failed(dict(fetcher.fetch_all([site.url("/fine")]))[0])
    for outcome in [*map(failed, outcomes.values()), later]:
        assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_HTTP_STATUS, True)
        assert outcome.http_status == 429
    assert later.detail == "its host answers 429 and asks to wait"
    assert len(site.requests) == 2


def test_a_host_that_names_no_pause_gets_fewer_and_fewer_requests() -> None:
    limits = replace(LIMITS, per_host=8, timeout_s=STALLED_S)
    busy = {f"/{n}": answering(503) for n in range(60)}
    with Site(busy) as site, fetching(limits) as fetcher:
        outcomes = [
            failed(outcome)
            for _, outcome in fetcher.fetch_all([site.url(f"/{n}") for n in range(60)])
        ]
    assert {(outcome.code, outcome.http_status) for outcome in outcomes} == {
        (RejectionCode.FETCH_HTTP_STATUS, 503)
    }
    assert len(site.requests) < 30


def test_other_hosts_are_not_slowed_by_one_that_pushes_back() -> None:
    limits = replace(LIMITS, concurrency=8, per_host=4)
    busy = answering(429, headers={"Retry-After": "4"})
    with Site({"/": busy}) as slow, Site() as site, fetching(limits) as fetcher:
        urls = [slow.url()] * 30 + [site.url(f"/{n}") for n in range(30)]
        outcomes = fetcher.fetch_all(urls)
        first = [next(outcomes) for _ in range(30)]
        outcomes.close()
    assert {position for position, _ in first} == set(range(30, 60))
    assert all(outcome.label == "fetched" for _, outcome in first)


def test_a_host_that_recovers_gets_as_many_requests_as_before() -> None:
    refusals = iter([429] * 4)

    async def recovering(request: web.BaseRequest) -> web.Response:
        return web.Response(status=next(refusals, 200), text="picture")

    paths = [f"/{n}" for n in range(40)]
    answers: dict[str, Answer] = dict.fromkeys(paths, recovering)
    answers |= dict.fromkeys(meet_paths := [f"/meet/{n}" for n in range(4)], meeting(4))
    with Site(answers) as site, fetching(replace(LIMITS, per_host=4)) as fetcher:
        for batch in (paths, meet_paths):
            outcomes = list(fetcher.fetch_all([site.url(path) for path in batch]))
            assert all(outcome.label == "fetched" for _, outcome in outcomes)


def test_a_pause_applies_to_the_host_that_a_redirect_leads_to() -> None:
    with (
        Site({"/busy": answering(503, headers={"Retry-After": "3600"})}) as inner,
        Site({"/onward": redirecting(inner.url("/busy"))}) as site,
        fetching() as fetcher,
    ):
        for url in (site.url("/onward"), inner.url("/other"), site.url("/onward")):
            outcome = failed(dict(fetcher.fetch_all([url]))[0])
            assert (outcome.code, outcome.http_status) == (RejectionCode.FETCH_HTTP_STATUS, 503)
        assert payload(dict(fetcher.fetch_all([site.url("/here")]))[0]) == b"/here"
    assert [seen.target for seen in inner.requests] == ["/busy"]


# ---- Deadlines


async def drip(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b".")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("slow", [hang, drip])
def test_a_slow_answer_ends_at_the_deadline(slow: Answer) -> None:
    with Site({"/": slow}) as site:
        outcome = fetch(site.url(), replace(LIMITS, timeout_s=0.4))
        wait_until(lambda: site.open == 0)
    rejection = failed(outcome)
    assert (rejection.code, rejection.retryable) == (RejectionCode.FETCH_TIMEOUT, True)
    assert rejection.detail == "no complete answer in 0.4 s"
    assert 400 <= outcome.elapsed_ms < PATIENCE_S * 1000


def test_downloads_that_wait_for_a_hanging_host_time_out_with_it() -> None:
    limits = replace(LIMITS, per_host=2, timeout_s=1)
    began = time.monotonic()
    with Site({f"/{n}": hang for n in range(60)}) as site, fetching(limits) as fetcher:
        outcomes = list(fetcher.fetch_all([site.url(f"/{n}") for n in range(60)]))
    assert {failed(outcome).code for _, outcome in outcomes} == {RejectionCode.FETCH_TIMEOUT}
    assert all(failed(outcome).retryable for _, outcome in outcomes)
    assert len(site.requests) < 20
    # Timing out one after the other would take half a minute.
    assert time.monotonic() - began < 15


def test_waiting_for_a_slow_host_is_limited() -> None:
    async def slowly(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response(text=request.path)

    limits = replace(LIMITS, per_host=1, patience_s=STALLED_S + 1)
    with Site({f"/{n}": slowly for n in range(100)}) as site, fetching(limits) as fetcher:
        outcomes = list(fetcher.fetch_all([site.url(f"/{n}") for n in range(100)]))
    late = [failed(outcome) for _, outcome in outcomes if outcome.label != "fetched"]
    assert 0 < len(late) < 100
    assert {(outcome.code, outcome.detail) for outcome in late} == {
        (RejectionCode.FETCH_TIMEOUT, f"no complete answer in {limits.patience_s:g} s")
    }


def test_redirects_share_one_deadline() -> None:
    async def slowly_on(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response(status=302, headers={"Location": request.path + "x"})

    paths = ["/" + "x" * n for n in range(4)]
    with Site(dict.fromkeys(paths, slowly_on)) as site:
        outcome = failed(fetch(site.url(), replace(LIMITS, timeout_s=0.5)))
    assert outcome.code == RejectionCode.FETCH_TIMEOUT
    assert 1 <= len(site.requests) <= 2


# ---- Redirects


def chain(length: int) -> dict[str, Answer]:
    hops: dict[str, Answer] = {f"/{n}": redirecting(f"/{n + 1}") for n in range(length)}
    return hops | {f"/{length}": answering(body=b"picture")}


def test_three_redirects_are_followed() -> None:
    with Site(chain(3)) as site:
        assert payload(fetch(site.url("/0"))) == b"picture"


def test_a_fourth_redirect_is_not_followed() -> None:
    with Site(chain(4)) as site:
        outcome = failed(fetch(site.url("/0")))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_REDIRECTS, False)
    assert outcome.detail == "redirected more than 3 times"
    assert [seen.target for seen in site.requests] == ["/0", "/1", "/2", "/3"]


def test_a_redirect_loop_ends() -> None:
    with Site({"/a": redirecting("/b"), "/b": redirecting("/a")}) as site:
        assert failed(fetch(site.url("/a"))).code == RejectionCode.FETCH_REDIRECTS


def test_a_redirect_without_a_location_is_a_status() -> None:
    with Site({"/": answering(302)}) as site:
        assert failed(fetch(site.url())).detail == "answered 302"


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1/",
        "http://user:password@127.0.0.1/",
        "http://2130706433/",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://\udcff/",
    ],
)
def test_a_redirect_to_anything_but_a_plain_http_url_is_refused(
    location: str, dialled: list[str]
) -> None:
    with Site({"/": redirecting(location)}) as site:
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_REDIRECTS, False)
    assert dialled == ["127.0.0.1"]


# ---- The guard


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "2130706433",  # decimal
        "0x7f000001",  # hex
        "0x7f.0.0.1",
        "017700000001",  # octal
        "0177.0.0.1",
        "127.1",  # short
        "0",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",  # IPv4-compatible
        "[::ffff:127.0.0.1]",  # IPv4-mapped
        "[::ffff:7f00:1]",
        "[2002:7f00:1::]",  # 6to4
        "[64:ff9b::7f00:1]",  # NAT64
        "[64:ff9b:1::7f00:1]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",  # Teredo
        "[fc00::1]",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fec0::1]",
        "localhost",
        "LOCALHOST",
    ],
)
def test_a_host_that_is_not_public_is_refused_before_any_socket_connects(
    host: str, dialled: list[str]
) -> None:
    with Site() as site:
        outcome = failed(fetch(site.url(host=host), GUARDED))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_BLOCKED_ADDRESS, False)
    assert dialled == []
    assert site.requests == []


def test_the_allow_list_permits_its_networks_only() -> None:
    with Site() as site:
        payload(fetch(site.url(host="127.0.0.1")))
        assert failed(fetch(site.url(host="127.0.0.2"))).code == RejectionCode.FETCH_BLOCKED_ADDRESS


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photo.jpg",
        "//photos.example/a.jpg",
        "http:///a.jpg",
        "ftp://photos.example/a.jpg",
        "file:///etc/passwd",
        "ws://photos.example/",
        "tcp://photos.example/",
        "http://user@photos.example/",
        "http://user:password@photos.example/",
        "http://@photos.example/",
        "http://photos.example:99999/",
        "http://photos.example\\@127.0.0.1/",
        "http://[::1",
        "http://\ud800/",
    ],
)
def test_a_url_that_is_not_plain_http_is_refused(url: str, dialled: list[str]) -> None:
    outcome = failed(fetch(url))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_BLOCKED_ADDRESS, False)
    assert dialled == []


def test_a_redirect_to_loopback_is_refused(dialled: list[str]) -> None:
    with Site(host="127.0.0.2") as inner, Site({"/": redirecting(inner.url())}) as site:
        outcome = failed(fetch(site.url()))
    assert outcome.code == RejectionCode.FETCH_BLOCKED_ADDRESS
    assert dialled == ["127.0.0.1"]
    assert inner.requests == []


def test_a_public_name_with_a_loopback_address_is_refused(dialled: list[str]) -> None:
    with Site() as site:
        names = Names(photos=[["127.0.0.1"]])
        outcome = failed(fetch(site.url(host="photos.example"), GUARDED, names))
    assert outcome.code == RejectionCode.FETCH_BLOCKED_ADDRESS
    assert dialled == []


def test_a_name_with_only_refused_addresses_is_refused(dialled: list[str]) -> None:
    names = Names(photos=[["10.0.0.1", "127.0.0.1", "::1", "fd00::1", "::ffff:10.0.0.2"]])
    with Site() as site:
        outcome = failed(fetch(site.url(host="photos.example"), GUARDED, names))
    assert outcome.code == RejectionCode.FETCH_BLOCKED_ADDRESS
    assert dialled == []


def test_of_several_addresses_the_refused_ones_are_never_dialled(dialled: list[str]) -> None:
    names = Names(photos=[["127.0.0.2", "::1", "127.0.0.1"]])
    with Site() as site:
        assert payload(fetch(site.url("/a", host="photos.example"), resolver=names)) == b"/a"
    assert set(dialled) == {"127.0.0.1"}


def test_a_name_that_changes_its_address_is_checked_by_the_dialled_one(dialled: list[str]) -> None:
    # DNS rebinding: the first lookup gives an allowed address, the second a refused one.
    names = Names(photos=[["127.0.0.1"], ["127.0.0.2"]])
    with Site(host="127.0.0.2") as inner:
        onward = redirecting(inner.url(host="photos.example"))
        with Site({"/": onward}) as site:
            outcome = failed(fetch(site.url(host="photos.example"), resolver=names))
    assert outcome.code == RejectionCode.FETCH_BLOCKED_ADDRESS
    assert len(site.requests) == 1
    assert dialled == ["127.0.0.1"]
    assert inner.requests == []


def test_a_self_signed_certificate_is_refused() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    with Site(tls=tls) as site:
        with urllib.request.urlopen(site.url(), context=trusting) as answer:
            assert answer.status == 200
        outcome = failed(fetch(site.url()))
    assert (outcome.code, outcome.retryable) == (RejectionCode.FETCH_CONNECTION, False)
    assert outcome.detail == "its certificate is not valid"
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "path", ["/404", "/503", "/loop", "/big", "/hang", "/drop", "/outside", "/user"]
)
def test_no_detail_repeats_the_url(path: str) -> None:
    async def drop(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    answers = {
        "/404": answering(404),
        "/503": answering(503),
        "/loop": redirecting("/loop?sig=SECRET"),
        "/big": answering(body=bytes(LIMITS.max_bytes + 1)),
        "/hang": hang,
        "/drop": drop,
        "/outside": redirecting("http://127.0.0.2/?sig=SECRET"),
        "/user": redirecting("http://SECRET@127.0.0.1/?sig=SECRET"),
    }
    with Site(answers) as site:
        outcome = failed(fetch(site.url(f"{path}?sig=SECRET"), replace(LIMITS, timeout_s=1)))
    assert "SECRET" not in outcome.detail
    assert "127.0.0" not in outcome.detail


# ---- Concurrency and memory


def meeting(count: int) -> Answer:
    """Answer no request until `count` requests wait together."""
    barrier = asyncio.Barrier(count)

    async def meet(request: web.BaseRequest) -> web.Response:
        await barrier.wait()
        return web.Response(text=request.path)

    return meet


def test_the_urls_of_a_chunk_are_fetched_at_once() -> None:
    paths = [f"/{n}" for n in range(32)]
    with Site(dict.fromkeys(paths, meeting(32))) as site, fetching() as fetcher:
        outcomes = dict(fetcher.fetch_all([site.url(path) for path in paths]))
    assert [payload(outcomes[n]).decode() for n in range(32)] == paths
    assert site.most_open == 32


def test_no_more_than_the_limit_are_fetched_at_once() -> None:
    paths = [f"/{n}" for n in range(24)]
    limits = replace(LIMITS, concurrency=6)
    with Site(dict.fromkeys(paths, meeting(6))) as site, fetching(limits) as fetcher:
        outcomes = list(fetcher.fetch_all([site.url(path) for path in paths]))
    assert all(outcome.label == "fetched" for _, outcome in outcomes)
    assert site.most_open == 6


def test_no_more_than_the_limit_of_a_host_are_fetched_from_it_at_once() -> None:
    paths = [f"/{n}" for n in range(24)]
    limits = replace(LIMITS, per_host=4)
    sites = [Site(dict.fromkeys(paths, meeting(4))) for _ in range(2)]
    with sites[0] as site, sites[1] as other, fetching(limits) as fetcher:
        urls = [host.url(path) for path in paths for host in (site, other)]
        outcomes = list(fetcher.fetch_all(urls))
    assert all(outcome.label == "fetched" for _, outcome in outcomes)
    assert (site.most_open, other.most_open) == (4, 4)


def test_a_hanging_host_delays_only_its_own_items() -> None:
    limits = replace(LIMITS, concurrency=4, per_host=2, timeout_s=STALLED_S)
    with Site({"/": hang}) as hanging, Site() as site, fetching(limits) as fetcher:
        urls = [hanging.url()] * 6 + [site.url(f"/{n}") for n in range(20)]
        outcomes = list(fetcher.fetch_all(urls))
    assert {position for position, _ in outcomes[:20]} == set(range(6, 26))
    assert all(outcome.label == "fetched" for _, outcome in outcomes[:20])
    assert {failed(outcome).code for _, outcome in outcomes[20:]} == {RejectionCode.FETCH_TIMEOUT}


def test_payloads_do_not_pile_up_before_a_slow_reader() -> None:
    limits = replace(LIMITS, concurrency=3)
    with Site() as site, fetching(limits) as fetcher, fetching() as bystander:
        outcomes = fetcher.fetch_all([site.url(f"/{n}") for n in range(40)])
        next(outcomes)
        wait_until(lambda: len(site.requests) == 1 + 3)
        for n in range(50):  # time enough for the other forty
            list(bystander.fetch_all([site.url(f"/{n}")]))
        assert len(site.requests) == 1 + 3 + 50
        assert len(list(outcomes)) == 39


def test_payloads_that_exceed_the_budget_together_all_arrive() -> None:
    paths = [f"/{n}" for n in range(24)]
    body = bytes(90_000)
    limits = replace(LIMITS, budget_bytes=150_000)
    answers: dict[str, Answer] = dict.fromkeys(paths, answering(body=body))
    with Site(answers) as site, fetching(limits) as fetcher:
        outcomes = list(fetcher.fetch_all([site.url(path) for path in paths]))
    assert [payload(outcome) for _, outcome in outcomes] == [body] * 24


def test_a_payload_larger_than_the_budget_arrives() -> None:
    limits = replace(LIMITS, budget_bytes=1000)
    with Site({"/": answering(body=bytes(LIMITS.max_bytes))}) as site:
        assert len(payload(fetch(site.url(), limits))) == LIMITS.max_bytes


@pytest.mark.parametrize("per_host", [4, 2])
def test_waiting_for_the_budget_is_no_timeout(per_host: int) -> None:
    limits = replace(LIMITS, budget_bytes=50_000, timeout_s=STALLED_S, per_host=per_host)
    answers = {f"/{n}": answering(body=bytes(40_000)) for n in range(4)}
    with Site(answers) as site, fetching(limits) as fetcher:
        outcomes = fetcher.fetch_all([site.url(f"/{n}") for n in range(4)])
        taken = [next(outcomes)]
        began = time.monotonic()
        wait_until(
            lambda: len(site.requests) >= per_host and time.monotonic() > began + STALLED_S + 0.5
        )
        taken += outcomes
    assert [len(payload(outcome)) for _, outcome in taken] == [40_000] * 4


def test_waiting_for_others_to_be_taken_is_no_silence_of_a_host() -> None:
    limits = replace(LIMITS, concurrency=1, per_host=1, timeout_s=STALLED_S)
    with Site() as site, Site() as other, fetching(limits) as fetcher:
        outcomes = fetcher.fetch_all([other.url(), *[site.url(f"/{n}") for n in range(3)]])
        taken = [next(outcomes)]
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + STALLED_S + 0.5)
        taken += outcomes
    assert [outcome.label for _, outcome in taken] == ["fetched"] * 4


def test_other_downloads_have_turns_while_a_body_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = 0
    turns = []
    take = ByteBudget.take

    def recorded_take(self: ByteBudget, share: Share, count: int) -> bool:
        turns.append(turn)
        return take(self, share, count)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def download(url: str) -> Outcome:
        counting = asyncio.create_task(count_turns())
        async with open_session(1, LIMITS.allow_networks) as session:
            downloads = Downloads(session, replace(LIMITS, max_bytes=10_000_000))
            outcome = await downloads.fetch(url, ExitStack())
        counting.cancel()
        return outcome

    monkeypatch.setattr(ByteBudget, "take", recorded_take)
    packed = answering(body=gzip.compress(bytes(5_000_000)), headers={"Content-Encoding": "gzip"})
    with Site({"/": packed}) as site:
        outcome = asyncio.run(download(site.url()))
    assert len(payload(outcome)) == 5_000_000
    assert len(turns) > 10
    assert len(set(turns)) == len(turns), "several parts in one turn"


def test_a_name_is_looked_up_once_for_many_connections(dialled: list[str]) -> None:
    names = Names(photos=[["127.0.0.1"], ["127.0.0.2"]])
    closing = answering(headers={"Connection": "close"})
    with Site({"/": closing}) as site, fetching(resolver=names) as fetcher:
        for _ in range(5):
            payload(dict(fetcher.fetch_all([site.url(host="photos.example")]))[0])
    assert dialled == ["127.0.0.1"] * 5
    assert len(names.names["photos"]) == 1, "the second lookup would have given another address"


def test_the_address_of_a_cached_name_is_checked_for_each_connection(
    dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter([True, False])
    monkeypatch.setattr("worker.fetching.session.may_dial", lambda *_: next(verdicts))
    names = Names(photos=[["127.0.0.1"]])
    closing = answering(headers={"Connection": "close"})
    with Site({"/": closing}) as site, fetching(resolver=names) as fetcher:
        url = site.url(host="photos.example")
        payload(dict(fetcher.fetch_all([url]))[0])
        assert failed(dict(fetcher.fetch_all([url]))[0]).code == RejectionCode.FETCH_BLOCKED_ADDRESS
    assert dialled == ["127.0.0.1"]


# ---- Cancelling and closing


def test_dropping_the_outcomes_cancels_the_other_downloads_and_frees_their_slots() -> None:
    limits = replace(LIMITS, concurrency=2)
    with Site({"/hang": hang}) as site, fetching(limits) as fetcher:
        for path in ("/first", "/second", "/third"):
            outcomes = fetcher.fetch_all([site.url(path), site.url("/hang"), *[site.url()] * 9])
            assert payload(next(outcomes)[1]) == path.encode()
            outcomes.close()
        wait_until(lambda: site.open == 0)
        urls = [site.url(f"/{n}") for n in range(8)]
        assert len(list(fetcher.fetch_all(urls))) == 8


def test_closing_leaves_no_thread_task_or_connection(caplog: pytest.LogCaptureFixture) -> None:
    with Site({"/hang": hang}) as site:
        before = set(threading.enumerate())
        with fetching() as fetcher:
            outcomes = fetcher.fetch_all(
                [site.url(host="localhost"), site.url("/a"), site.url("/hang")]
            )
            next(outcomes)
            next(outcomes)
            del outcomes
        assert set(threading.enumerate()) <= before
        wait_until(lambda: site.open == 0)
    del fetcher
    gc.collect()  # anything left open warns now, which fails the test
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_closing_during_a_download_fails_no_item() -> None:
    outcomes: list[object] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            outcomes.extend(fetcher.fetch_all([site.url("/hang")] * 3))
        except CancelledError as error:
            errors.append(error)

    with Site({"/hang": hang}) as site, fetching() as fetcher:
        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: site.open == 3)
        fetcher.close()
        reader.join()
    assert outcomes == []
    assert len(errors) == 1


def test_a_closed_fetcher_fetches_nothing() -> None:
    with fetching() as fetcher:
        pass
    fetcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(fetcher.fetch_all(["http://photos.example/"]))
