"""Connections to a real API process: odd but valid requests, and slow or hostile peers."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from api.connections import MAX_HEAD_BYTES
from scripts.local.stack import Stack
from tests.scripts.processes import eventually

TIMEOUT_S = 1
CONNECTIONS = 20
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
ITEMS = b'{"urls":["http://127.0.0.1:9/a.jpg"]}'
CSV = b"url\nhttp://127.0.0.1:9/a.jpg\n"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run an API with a short time limit."""
    limits = {"PIQUEUE_REQUEST_TIMEOUT_S": str(TIMEOUT_S)}
    with Stack(tmp_path_factory.mktemp("stack"), workers=0, env=limits) as running:
        yield running


@pytest.fixture(scope="module")
def small_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run an API with few connections, and time enough for each request."""
    limits = {"PIQUEUE_MAX_CONNECTIONS": str(CONNECTIONS)}
    with Stack(tmp_path_factory.mktemp("stack"), workers=0, env=limits) as running:
        yield running


class Peer:
    """A client that writes bytes as the test says."""

    def __init__(self, api: Stack) -> None:
        port = int(api.url.rpartition(":")[2])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._received = b""

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> "Peer":
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, str, bytes]:
        """Read one answer: its status, headers and body; status 0 if the connection was closed."""
        while b"\r\n\r\n" not in self._received:
            self._received += (part := self.socket.recv(65536))
            if not part:
                return 0, "", self._received
        head, _, body = self._received.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        (length,) = (int(line[15:]) for line in lines if line.startswith("content-length:"))
        while len(body) < length:
            body += self.socket.recv(65536)
        self._received = body[length:]
        return int(head.split()[1]), "\n".join(lines), body[:length]

    def interim(self) -> None:
        """Read the interim answer to `Expect: 100-continue`."""
        while b"\r\n\r\n" not in self._received:
            self._received += (part := self.socket.recv(65536))
            assert part, "the connection was closed"
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 100 ")

    def closed(self) -> bool:
        """Whether the API closes the connection, without a further answer."""
        try:
            return self.socket.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


def ask(api: Stack, request: bytes) -> tuple[int, str, bytes]:
    with Peer(api) as peer:
        return peer.send(request).answer()


def post(headers: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST /jobs HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(("kind", "body"), [("application/json", ITEMS), ("text/csv", CSV)])
@pytest.mark.parametrize(
    "upgrade", ["", H2C, "Connection: Upgrade\r\nUpgrade: websocket\r\n"], ids=["no", "h2c", "ws"]
)
def test_a_body_arrives_whatever_protocol_its_client_offers(
    small_api: Stack, upgrade: str, kind: str, body: bytes
) -> None:
    assert ask(small_api, post(upgrade, body, kind))[0] == 202


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /healthz HTTP/1.1",
        "GET http://localhost/healthz?a=b HTTP/1.1",
        "\r\nGET /healthz HTTP/1.0",
    ],
    ids=["origin form", "absolute form", "empty line"],
)
def test_every_form_of_a_request_line_is_understood(small_api: Stack, request_line: str) -> None:
    assert ask(small_api, f"{request_line}\r\nHost: localhost\r\n\r\n".encode())[0] == 200


def test_requests_that_are_sent_ahead_are_answered_in_their_order(small_api: Stack) -> None:
    with Peer(small_api) as peer:
        peer.send(post("", ITEMS) + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.answer()[0] == 202
        assert peer.answer()[2] == b'{"status":"ok"}'


def test_a_request_with_two_lengths_is_the_last_of_its_connection(small_api: Stack) -> None:
    head = "Transfer-Encoding: chunked\r\n"
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ITEMS), ITEMS)
    with Peer(small_api) as peer:
        peer.send(post(head, chunked) + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.answer()[0] == 202
        assert peer.closed()


@pytest.mark.parametrize("senders", [1, 8])
def test_bodies_of_tiny_chunks_leave_others_their_turns(small_api: Stack, senders: int) -> None:
    head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in CSV) + b"1\r\n\n\r\n" * (150_000 // senders)
    body = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"

    def send() -> int:
        with Peer(small_api) as peer:
            return peer.send(body).answer()[0]

    def longest_wait() -> float:
        """Send it from all, and ask meanwhile; gives the longest wait as a share of the whole."""
        started, longest_s = time.monotonic(), 0.0
        with ThreadPoolExecutor() as threads:
            sending = [threads.submit(send) for _ in range(senders)]
            while not all(one.done() for one in sending):
                asked = time.monotonic()
                assert ask(small_api, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
                longest_s = max(longest_s, time.monotonic() - asked)
        assert [one.result() for one in sending] == [202] * senders
        return longest_s / (time.monotonic() - started)

    # Others on this machine may hold up one request, but not one in each of three trials.
    assert any(longest_wait() < 1 / 4 for _ in range(3)), "others wait for a part of that body"


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES // 2, MAX_HEAD_BYTES * 2, MAX_HEAD_BYTES * 40])
@pytest.mark.parametrize("lines", [1, 100])
def test_headers_are_limited_in_all(small_api: Stack, size: int, lines: int) -> None:
    extra = "".join(f"X-{line}: {'v' * (size // lines)}\r\n" for line in range(lines))
    with Peer(small_api) as peer:
        peer.send(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
        status, headers, body = peer.answer()
    if size < MAX_HEAD_BYTES:
        assert status == 200
    else:
        assert (status, json.loads(body)["code"]) == (431, "headers_too_large")
        assert "application/problem+json" in headers


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        "GET /ä HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nurl\r\n",
    ],
    ids=["TLS", "no host", "not ASCII", "two lengths", "no chunk"],
)
def test_what_is_not_http_is_answered_with_a_problem(
    small_api: Stack, request_bytes: bytes
) -> None:
    with Peer(small_api) as peer:
        status, headers, body = peer.send(request_bytes).answer()
        assert (status, json.loads(body)["code"]) == (400, "bad_request")
        assert "application/problem+json" in headers
        assert peer.closed()


def test_slow_headers_are_closed(api: Stack) -> None:
    with Peer(api) as silent, Peer(api) as slow:
        began = time.monotonic()
        slow.send(b"GET /healthz HTTP/1.1\r\n")
        with suppress(OSError):  # if this test stalls, the API does not wait for it
            for _ in range(4):
                time.sleep(TIMEOUT_S / 5)
                slow.send(b"X: y\r\n")
        status, _, body = slow.answer()
        assert (status, json.loads(body)["code"]) == (408, "request_timeout")
        assert slow.closed()
        assert silent.closed()
        assert time.monotonic() - began < 10 * TIMEOUT_S


@pytest.mark.parametrize(
    "kind",
    ["application/json", "text/csv", "application/x-ndjson", "multipart/form-data;boundary=x"],
)
def test_a_slow_body_is_refused(api: Stack, kind: str) -> None:
    with Peer(api) as peer:
        peer.send(post("", bytes(100_000), kind)[:-99_000])
        status, headers, body = peer.answer()
        assert (status, json.loads(body)["code"]) == (408, "request_timeout")
        assert "application/problem+json" in headers
        assert peer.closed()


def test_a_body_that_keeps_the_least_rate_is_taken(api: Stack) -> None:
    line = b"url\n" + CSV[4:] * 10

    def is_taken() -> bool:
        with Peer(api) as peer, suppress(ConnectionError):
            peer.send(post("", line + CSV[4:] * 200, "text/csv")[: -len(CSV[4:]) * 200])
            for _ in range(20):
                time.sleep(TIMEOUT_S / 10)
                peer.send(CSV[4:] * 10)
            return peer.answer()[0] == 202
        return False

    # Others on this machine may hold up one body, but not each of three.
    assert any(is_taken() for _ in range(3))


def test_the_rest_of_a_refused_body_does_not_hold_a_connection(api: Stack) -> None:
    with Peer(api) as peer:
        began = time.monotonic()
        peer.send(post("", bytes(100_000), "image/jpeg")[:-90_000])
        assert peer.answer()[0] == 415

        def cut_off() -> bool:
            try:
                peer.send(b"x")
            except OSError:
                return True
            return False

        assert eventually(cut_off, 20 * TIMEOUT_S)
        assert time.monotonic() - began > TIMEOUT_S / 2


def test_idle_connections_give_way_and_busy_ones_do_not(small_api: Stack) -> None:
    with ExitStack() as peers:
        idle = [peers.enter_context(Peer(small_api)) for _ in range(CONNECTIONS)]
        busy = [peers.enter_context(Peer(small_api)).send(post("", ITEMS)[:-1]) for _ in range(3)]
        for peer in idle:
            peer.socket.settimeout(0)
        assert eventually(lambda: sum(peer.closed() for peer in idle) == len(busy))
        for peer in busy:
            assert peer.send(b"}").answer()[0] == 202


def test_more_busy_connections_than_allowed_are_refused(small_api: Stack) -> None:
    with ExitStack() as peers:
        held = [peers.enter_context(Peer(small_api)) for _ in range(CONNECTIONS)]
        for peer in held:
            # The API asks for the rest once the request is in progress.
            peer.send(post("Expect: 100-continue\r\n", ITEMS)[:-1]).interim()
        assert eventually(lambda: ask(small_api, b"")[0] == 503)
        with Peer(small_api) as peer:
            status, headers, body = peer.answer()
        assert (status, json.loads(body)["code"]) == (503, "too_many_connections")
        assert "retry-after: 5" in headers
        assert [peer.send(b"}").answer()[0] for peer in held] == [202] * CONNECTIONS
