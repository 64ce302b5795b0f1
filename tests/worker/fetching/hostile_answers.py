"""Hostile HTTP answers for tests, the same in every run, and a server that sends them."""

import asyncio
import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self

from api.connections import allow_open_files
from scripts.local.image_server import accept_no_more
from worker.fetching.loop_thread import LoopThread

GOOD = b"good"
# What a GET of any path but /hostile is answered with.
GOOD_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + GOOD


FLOOD = 1000


@dataclass(frozen=True)
class HostileAnswer:
    """The bytes that one request gets, and what follows them.

    `endless` is sent FLOOD times behind them, with pauses of `pause_s`. After that, the connection
    stays open if `hold`, and is reset if `reset`.
    """

    name: str
    begin: bytes = b""
    endless: bytes = b""
    pause_s: float = 0
    hold: bool = False
    reset: bool = False
    scheme: str = "http"


def _head(*headers: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *headers, b"", b""])


def _chunked(body: bytes, *headers: bytes) -> bytes:
    return _head(b"Transfer-Encoding: chunked", *headers) + body


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(body) + packer.flush()


_LENGTH = b"Content-Length: 4"
_LONG = b"x" * 70_000
_CODES = (
    *(0, 99, 100, 101, 102, 103, 199, 201, 204, 205, 206, 226, 300, 304, 305, 306, 399, 400, 401),
    *(402, 407, 408, 416, 418, 421, 425, 451, 499, 500, 505, 511, 599, 600, 777, 999, 1000),
)
_STATUS_LINES = [
    *(b"HTTP/1.1 %03d x" % code for code in _CODES), b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 200",
    b"HTTP/1.1  200 OK", b"HTTP/1.1\t200\tOK", b"HTTP", b"HTTP/1.0 200 OK", b"HTTP/0.9 200 OK",
    b"HTTP/2 200", b"HTTP/2.0 200 OK", b"HTTP/3 200 OK", b"HTTP/1.9999999999 200 OK",
    b"HTTP/99999999999.1 200 OK", b"HTTP/-1.1 200 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 2e2 OK",
    b"HTTP/1.1 0x200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 " + b"2" * 5000 + b" OK",
    "HTTP/1.1 ٢٠٠ OK".encode(), b"HTTP/1.1 200 \0\xff\x1b", b"http/1.1 200 OK", b"ICY 200 OK",
    b"SIP/2.0 200 OK", b"HTTP/1.1 200 " + _LONG, _LONG, b"\r\n" * 9 + b"HTTP/1.1 200 OK",
    b" HTTP/1.1 200 OK", b"\xef\xbb\xbfHTTP/1.1 200 OK", b"HTTP/1.1 200 OK\rX: y",
    b"HTTP/1.1 200 OK\nX: y", b"\0HTTP/1.1 200 OK", b"",
]  # fmt: skip
_HEADERS = [
    b"X: a\r\n folded\r\n\tagain", b" X: y", b"X : y", b"X\t: y", b": y", b"X", b"X:", b"\0: y",
    b"X\0Y: z", b"X: a\0b", b"X: \xff\xfe\x80", "É: x".encode(), "X: 🙈".encode(), b"X: \x1b[2J",
    b"X: a\rb", b"X: a\nY: b", b"X: a\n\nY: b", b"\r: y", b"X: \r", b"X: y\r\r", b'"X": y',
    b"X:y:z", b"X:" + b" " * 60_000, b"X:" + b" " * 70_000, b"X:" + b"\t" * 65_000 + b"y",
    b"X:" + _LONG, _LONG + b": y", b"\r\n".join([b"X: y"] * 300),
    b"\r\n".join([b"X: " + b"y" * 60_000] * 200), b"Content-Length: 4\r\nContent-Length: 4",
    b"Content-Length: 4\r\nContent-Length: 5", b"Content-Length: 4\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, chunked",
    *(b"Content-Length: " + value for value in (
        b"", b"-4", b"+4", b"4, 4", b"4,5", b"4 4", b"0x4", b"4.0", b"1e3", b"\x0b4", b"4\0",
        b"-0", b"%d" % 2**31, b"%d" % 2**32, b"%d" % 2**63, b"%d" % (2**64 + 4), b"9" * 400,
        b"0" * 9000, "٤".encode(), b"\xb2", b"nan", b"inf", b"none", b"1", b"0", b"5", b"100000",
        b"100001",
    )),
    *(b"Transfer-Encoding: " + value for value in (
        b"", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"xchunked", b"chunked;q=1",
        b"CHUNKED", b"chunked\x0b", b"\xff", b"chunked\r\nTransfer-Encoding: identity", b"," * 999,
    )),
    *(b"Content-Encoding: " + value for value in (
        b"", b"gzip", b"x-gzip", b"GZIP", b"deflate", b"br", b"zstd", b"compress", b"identity",
        b"gzip, gzip", b"gzip\r\nContent-Encoding: br", b"\xff", b"gzip;q=0", _LONG,
        b"gzip," * 5000,
    )),
    *(b"Content-Type: " + value for value in (
        b"", b"/", b"image", b"image/jpeg; charset=\xff", b'image/jpeg; x="' + b"\\" * 9000,
        b"multipart/x-mixed-replace; boundary=x", b"multipart/byteranges", b"; " * 30_000,
    )),
    *(b"Set-Cookie: " + value for value in (
        b"", b"=", b"a=b; Domain=127.0.0.1; Max-Age=" + b"9" * 999, b'a="' + b"\\" * 60_000,
        b"a=b; Expires=Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b";" * 60_000, b"\xff=\0",
        b"a=b\r\nSet-Cookie: " * 200 + b"c=d", b"__Secure-" + b"a" * 60_000 + b"=b; a[]=b",
    )),
    b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: " + b"close, keep-alive, " * 900,
    b"Keep-Alive: timeout=-1, max=" + b"9" * 999, b"Content-Range: bytes 9-1/-5", b"Age: -1",
    b"Refresh: 0;url=http://10.0.0.1/", b"Content-Location: http://10.0.0.1/",
    b"Alt-Svc: h2=\x22:1", b"Link: <http://10.0.0.1/>; rel=preload" + b"<>;," * 9000,
    b"Content-Disposition: a; filename*=x",
    b"WWW-Authenticate: Basic\r\nWWW-Authenticate: " + b"," * 60_000, b"Trailer: Content-Length",
]  # fmt: skip
_RETRY_AFTER = [
    b"", b"0", b"-1", b"1", b"61", b"9" * 5000, b"1e309", b"nan", b"inf", b"0x9", b"1, 2", b"\xb2",
    "٣".encode(), "３".encode(), b"1\r\nRetry-After: 2", b"\0", b"x" * 60_000, b"," * 60_000,
    b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b"Mon, 01 Jan 0000 00:00:00 GMT",
    b"Mon, 01 Jan 0001 00:00:00 +2359", b"Fri, 31 Dec 9999 23:59:59 -2359", b"Mon, 99 Foo 2026",
    b"Mon, 01 Jan 2026 99:99:99 GMT", b"Mon, 01 Jan 2026 00:00:00 +99999999999999999999", b"Mon,",
    b"01 Jan 2100", b"Fri, 01 Jan 2100 00:00:00 GMT", b"(" * 30_000, b"1" * 4 + b":" * 30_000,
]  # fmt: skip
_LOCATIONS = [
    b"", b"/", b"//", b"///", b"?", b"#", b".", b"..", b"/../../..", b"//good", b"/\\good",
    b"\\\\x", b"http:", b"http:/", b"http://", b"http:///x", b"http://:80/", b"http://@/",
    b"http://.../", b"http://10.0.0.1/", b"http://169.254.169.254/latest/meta-data",
    b"http://[::1]/", b"http://[::]", b"http://127.0.0.2/", b"http://127.1/", b"http://0/",
    b"http://2130706433/", b"http://0x7f.1/", b"http://[::ffff:10.0.0.1]/",
    b"http://[fe80::1%25lo]/", b"http://[::1", b"http://[]/", b"http://]/", b"http://[v1.a]/",
    b"http://private.example/", b"http://unknown.example/", b"http://a..b/",
    b"http://" + b"a" * 64 + b".example/", b"http://" + b"a." * 30_000 + b"/",
    b"http://%31%30.0.0.1/", b"http://u:p@10.0.0.1/", b"http://10.0.0.1:99999/",
    b"http://10.0.0.1:-1/", b"http://10.0.0.1:x/", b"http://10.0.0.1\t/",
    b"http://10.0.0.1\0.example/", b"http://10.0.0.1#@127.0.0.1/", b"http:// /",
    b"https://10.0.0.1/", b"ftp://10.0.0.1/", b"file:///etc/passwd", b"data:image/png;base64,AAAA",
    b"javascript:alert(1)", b"gopher://10.0.0.1/", b"s3://bucket/key", b"blob:x", b"about:blank",
    b":", "http://①⓪.⓪.⓪.①/".encode(), "http://10。0。0。1/".encode(), b"http://\xff/", b"\xff",
    b"/\0", "http://xn--\udcff/".encode(errors="surrogateescape"), b"http://xn--a-0000000000/",
    b"/%", b"/%zz", b"/" + b"../" * 20_000, b"/" + b"%2e" * 20_000, b"x" * 65_000, b"?" * 65_000,
    b"/good#" + b"x" * 9000, b"/a\r\nLocation: /b", b"/ a", b"  /good  ", b"/hostile",
    b"hostile?x", b"//127.0.0.2/x",
]  # fmt: skip
_CHUNKED = [
    b"", b"\r\n", b"zz\r\ngood\r\n0\r\n\r\n", b"-4\r\ngood\r\n0\r\n\r\n",
    b"+4\r\ngood\r\n0\r\n\r\n", b"4\ngood\n0\n\n", b"4\rgood\r0\r\r", b" 4\r\ngood\r\n0\r\n\r\n",
    b"4 \r\ngood\r\n0\r\n\r\n", b"0x4\r\ngood\r\n0\r\n\r\n", b"4\r\ngoodness\r\n0\r\n\r\n",
    b"4\r\ngood0\r\n\r\n", b"5\r\ngood", b"f" * 8 + b"\r\ngood", b"f" * 15 + b"\r\ngood",
    b"f" * 16 + b"\r\ngood", b"f" * 17 + b"\r\ngood", b"f" * 9000,
    b"0" * 9000 + b"4\r\ngood\r\n0\r\n\r\n", b"4;" + _LONG + b"\r\ngood\r\n0\r\n\r\n",
    b"4;a=\0\xff\r\ngood\r\n0\r\n\r\n", b'4;a="\r\ngood\r\n0\r\n\r\n', b"\0\r\n", b"\xff\r\n",
    b"4\r\ngood\r\n0\r\n", b"4\r\ngood\r\n", b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n", b"0\r\n\r\n",
    b"4\r\ngood\r\n0\r\nX: y\r\n\r\n", b"4\r\ngood\r\n0\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    b"4\r\ngood\r\n0\r\nX: " + _LONG + b"\r\n\r\n", b"4\r\ngood\r\n0\r\nContent-Length: 9\r\n\r\n",
    b"4\r\ngood\r\n0\r\n: \0\r\nno colon\r\n\r\n", b"4\r\ngood\r\n0\r\n\r\n" + GOOD_ANSWER * 9,
]  # fmt: skip
_OTHER_PROTOCOLS = {
    "html": b"<html><body>HTTP/0.9</body></html>",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(500),
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "smtp": b"220 mail.example ESMTP\r\n",
    "http2 settings": bytes((0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100)),
    "tls alert": b"\x15\x03\x01\0\x02\x02\x28",
    "tls hello": b"\x16\x03\x03\xff\xff\x02\0\xff\xff" + b"\xff" * 70_000,
    "tls record": b"\x17\x03\x03\0\x05hello",
    "proxy": b"PROXY TCP4 10.0.0.1 10.0.0.1 1 1\r\n" + GOOD_ANSWER,
    "zeros": bytes(1_000_000),
    "line ends": b"\r\n" * 100_000,
    "request": b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
    "nothing": b"",
}
_CUT = _head(b"Content-Length: 9") + GOOD
_ENDLESS = {
    "silence": (b"", b""),
    "silence after the status": (b"HTTP/1.1 200 OK\r\n", b""),
    "silence in the body": (_CUT, b""),
    "silence in a chunk": (_chunked(b"9\r\ngood"), b""),
    "line ends": (b"", b"\r\n" * 500),
    "reason": (b"HTTP/1.1 200 ", b"x" * 1000),
    "status 100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "status 103": (b"", _head(b"Link: </a>; rel=preload", status=b"HTTP/1.1 103 Early Hints") * 20),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
    "folded header": (b"HTTP/1.1 200 OK\r\nX: y\r\n", b" y\r\n" * 100),
    "body": (_head(), b"x" * 1000),
    "body of single bytes": (_head(), b"x"),
    "chunks": (_chunked(b""), b"1\r\nx\r\n"),
    "chunk extension": (_chunked(b"4;"), b"x" * 1000),
    "chunk size": (_chunked(b""), b"0" * 1000),
    "trailers": (_chunked(b"4\r\ngood\r\n0\r\n"), b"X: y\r\n" * 100),
    "one trailer": (_chunked(b"4\r\ngood\r\n0\r\nX: "), b"y" * 1000),
    "surplus": (GOOD_ANSWER, b"x" * 1000),
    "answers": (GOOD_ANSWER, GOOD_ANSWER * 9),
    "empty gzip members": (_head(b"Content-Encoding: gzip"), _gzip(b"") * 50),
    "gzip": (_head(b"Content-Encoding: gzip"), _gzip(bytes(9_000_000))),
    "empty deflate blocks": (_head(b"Content-Encoding: deflate"), b"\0\0\0\xff\xff" * 200),
    "error page": (_head(status=b"HTTP/1.1 404 Not Found"), b"x" * 1000),
    "redirect page": (_head(b"Location: /good", status=b"HTTP/1.1 302 Found"), b"x" * 1000),
}  # fmt: skip


def hostile_answers(seed: int, mutant_count: int) -> Iterator[HostileAnswer]:
    """One answer for each fragment above, and valid answers of which bytes are changed."""
    for line in _STATUS_LINES:
        yield _whole(f"status {line[:40]!r}", _head(_LENGTH, status=line) + GOOD)
    for header in _HEADERS:
        name = f"header {header[:40]!r} of {len(header)}"
        framing = () if b"Content-Length" in header or b"Transfer" in header else (_LENGTH,)
        yield _whole(name, _head(*framing, header) + GOOD)
    for number, value in enumerate(_RETRY_AFTER):
        for code in (429, 503) if number % 2 else (503, 301):
            status = b"HTTP/1.1 %d x" % code
            answer = _head(_LENGTH, b"Retry-After: " + value, status=status) + GOOD
            yield _whole(f"{code} retry after {value[:40]!r}", answer)
    for number, value in enumerate(_LOCATIONS):
        status = b"HTTP/1.1 %d x" % (301, 302, 303, 307, 308)[number % 5]
        answer = _head(b"Content-Length: 0", b"Location: " + value, status=status)
        yield _whole(f"location {value[:40]!r}", answer)
    for body in _CHUNKED:
        yield _whole(f"chunks {body[:40]!r} of {len(body)}", _chunked(body))
    packed = _gzip(bytes(50_000_000))
    for coding in (b"gzip", b"deflate"):
        for body in (packed, packed[:-9], packed * 2, zlib.compress(bytes(99)), b"\0" * 9999):
            answer = _head(b"Content-Encoding: " + coding) + body
            yield _whole(f"{coding!r} {body[:9]!r} of {len(body)}", answer)
    for scheme in ("http", "https"):
        for name, answer in _OTHER_PROTOCOLS.items():
            yield HostileAnswer(f"{scheme} {name}", answer, scheme=scheme)
            yield HostileAnswer(f"{scheme} {name}, reset", answer, reset=True, scheme=scheme)
        yield HostileAnswer(f"{scheme} held", hold=True, scheme=scheme)
    for name, (begin, endless) in _ENDLESS.items():
        yield HostileAnswer(f"endless {name}", begin, endless, hold=True)
        if endless:
            yield HostileAnswer(f"endless {name}, slow", begin, endless[:99], pause_s=0.02)
    for name, whole in {"headers": GOOD_ANSWER, "chunks": _chunked(_CHUNKED[-1])}.items():
        for end in range(0, len(whole), 9):
            yield HostileAnswer(f"{name} cut at {end}", whole[:end], reset=end % 2 == 0)
    yield from _mutants(seed, mutant_count)


def _whole(name: str, answer: bytes) -> HostileAnswer:
    return HostileAnswer(name, answer)


def _mutants(seed: int, count: int) -> Iterator[HostileAnswer]:
    """Answers of several fragments each, with bytes changed, removed or repeated."""
    generator = random.Random(seed)
    short = [header for header in _HEADERS if len(header) < 500]
    for number in range(count):
        headers = generator.sample(short, generator.randint(0, 4))
        status = generator.choice(_STATUS_LINES[:-1])
        answer = bytearray(_head(_LENGTH, *headers, status=status) + GOOD)
        if number % 2:
            answer = bytearray(_chunked(generator.choice(_CHUNKED), *headers))
        for _ in range(generator.randint(0, 4)):
            at = int(generator.random() ** 2 * len(answer))
            match generator.randrange(4):
                case 0:
                    answer[at] ^= 1 << generator.randrange(8)
                case 1:
                    del answer[at : at + generator.randint(1, 9)]
                case 2:
                    answer[at:at] = answer[at : at + generator.randint(1, 64)]
                case _:
                    answer[at:at] = generator.choice((b"\r\n", b"\0", b"\n", b"\xff", b"\r\n\r\n"))
        end = generator.randrange(3)
        yield HostileAnswer(f"mutant {number}", bytes(answer), hold=end == 1, reset=end == 2)


class HostileHosts:
    """A server for each answer, which gives it to GET /hostile, and GOOD_ANSWER to other paths."""

    def __init__(self, answers: list[HostileAnswer]) -> None:
        self.urls: list[str] = []
        self._answers = answers
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        allow_open_files(2 * len(self._answers))
        self._loop = LoopThread("hostile")
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(accept_no_more(one for server in self._servers for one in server.sockets))
        self._loop.close(self._stop())

    async def _start(self) -> None:
        for answer in self._answers:
            server = await asyncio.start_server(partial(_serve, answer), "127.0.0.1", 0)
            self._servers.append(server)
            self.urls.append(f"{answer.scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()


async def _serve(
    answer: HostileAnswer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    # Python 3.11 reports a cancelled handler as an error.
    with suppress(ConnectionError, asyncio.CancelledError):
        while request := await reader.read(2**16):
            if request.startswith(b"GET /") and not request.startswith(b"GET /hostile"):
                writer.write(GOOD_ANSWER)
                continue
            writer.write(answer.begin)
            await writer.drain()
            for _ in range(FLOOD if answer.endless else 0):
                writer.write(answer.endless)
                await writer.drain()
                await asyncio.sleep(answer.pause_s)
            if not answer.hold:
                break
    if answer.reset:
        writer.transport.abort()
    writer.close()
