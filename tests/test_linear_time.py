"""Every parser of what strangers send takes time in proportion to it, whatever it holds."""

import struct
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

import h11
import pytest
from aiohttp.cookiejar import DummyCookieJar
from PIL import Image
from starlette.datastructures import Headers
from starlette.requests import Request
from yarl import URL

from api.connections import MAX_HEAD_BYTES as HEAD
from api.foreign_requests import foreign_reason
from api.formats import choose
from api.intake.bodies import (
    add_files,
    add_json,
    add_ndjson,
    content_type,
    form_options,
    options_from_query,
    read_json,
)
from api.intake.forms import read_parts, unescaped
from api.intake.items import ItemReceiver
from api.intake.tables import add_csv
from api.results import cursors
from api.results.downloads import _escape
from api.results.selection import ScoreColumns
from api.results.table import Layout, Table
from api.routes.jobs import WAIT
from api.urls import source_problem, url_problem
from model.images import repair, samples
from model.images.decode import decode_here
from model.images.headers import read_requirements
from model.images.result import ImageRejected
from model.images.signatures import describe_other, detect_format, is_truncated
from tests import hostile
from tests.growth import Parser, too_fast_growth
from worker.fetching.guard import is_disguised_ipv4, may_dial
from worker.fetching.session import (
    DownloadError,
    UrlRefused,
    parse_url,
    redirect_target,
    retry_after_s,
)
from worker.jobs.errors import PiqueueError
from worker.jobs.items import ItemSpec
from worker.jobs.settings import Settings

# As in a worker: warnings of Pillow are ignored.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

URL_CHARS, LOCATION = 4096, 65_536
MAX_PIXELS = 50_000_000
ITEM = b'{"url":"http://h/"'


class Received(ItemReceiver):
    """Counts the items."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.layout = Layout()

    def _problem(self, spec: ItemSpec) -> str | None:
        return self.layout.add(spec)

    def _accept(self, spec: ItemSpec, _payload: bytes | None) -> None:
        spec.to_row()


def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Read text, which may be refused."""

    def read_bytes(value: bytes) -> None:
        with suppress(PiqueueError, UrlRefused, DownloadError):
            read(value.decode("latin-1"))

    return read_bytes


def body(read: Callable[[BytesIO, Received], object]) -> Callable[[bytes], object]:
    """Read a body, which may be refused."""

    def read_bytes(value: bytes) -> None:
        with suppress(PiqueueError):
            read(BytesIO(value), Received())

    return read_bytes


def csv(file: BytesIO, received: Received) -> None:
    add_csv(file, {}, received)
    assert received.csv
    table = Table(received.csv, [ScoreColumns(("a", "b"))])
    _escape(table.header)


def form(file: BytesIO, received: Received) -> None:
    kind = 'multipart/form-data; boundary="b"'
    form_options(read_parts(file, kind, 1 << 20), 1000)
    file.seek(0)
    add_files(read_parts(file, kind, 1 << 20), received)


def request(headers: dict[str, bytes], query: bytes = b"") -> Request:
    raw = [(name.encode(), value) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw, "query_string": query})


def head(value: bytes) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
    with suppress(h11.RemoteProtocolError):
        for at in range(0, len(value), 4096):
            connection.receive_data(value[at : at + 4096])
            while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
                pass


def host(value: str) -> None:
    for name in ("host", "origin"):
        headers = Headers({"host": "localhost", name: value})
        foreign_reason("POST", headers, {"localhost"}, ())


def location(value: str) -> None:
    redirect_target(URL("http://h/a/b?c"), value)


def set_cookie(value: bytes) -> None:
    jar = DummyCookieJar.__new__(DummyCookieJar)
    jar.update_cookies_from_headers([value.decode("latin-1")], URL("http://h/"))


def requirements(kind: str) -> Callable[[bytes], object]:
    """Read the header of a picture of one format."""

    def read(payload: bytes) -> None:
        with suppress(ImageRejected):
            read_requirements(kind, payload, 224, MAX_PIXELS)

    return read


def decoded(kind: str) -> Callable[[bytes], object]:
    """Read and decode pictures of one format as a worker does, but without its sandbox."""

    def read(payload: bytes) -> None:
        with suppress(ImageRejected):
            read_requirements(kind, payload, 224, MAX_PIXELS)
            decode_here(payload, (224, 224), MAX_PIXELS)

    return read


def described(payload: bytes) -> None:
    image = Image.new("I", (1, 1))
    image.tag_v2 = {270: payload.decode("latin-1")}  # type: ignore[attr-defined]
    samples._display_range(image)
    samples._stated(image)


JPEG, PNG, GIF, TIFF, WEBP, AVIF, HEIF, JPEG2000 = (
    hostile.encode(hostile.picture(), kind)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000")
)
SMALL = hostile.segment
SEPARATORS = tuple(bytes((code,)) for code in b" \t,;:=/\\.-_'\"()[]{}<>@%&?#+*!|~^`$0a\xff\xe9")
PAIRS = (b", ", b"a,", b"a ", b"a;", b";=", b'";', b'\\"', b"\\1", b"a=b;", b"a=b, ", b"%22", b"..")
TEXT = SEPARATORS + PAIRS
BOX = struct.pack(">I4s", 8, b"free")

PARSERS: dict[str, Parser] = {
    # Requests: the head, and what is read of it.
    "head": Parser(
        head,
        (*TEXT, b"\n", b"\r", b"\r\n", b"\r\n ", b"a:b\r\n", b"a:\r\n", b"\0"),
        (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: h\r\nx:", b"GET / HTTP/1.1\r\nHost: h\r\n"),
        (b"\r\n\r\n", b"x\0\r\n\r\n"),
        HEAD,
    ),
    "chunks": Parser(
        head,
        (b"1\r\na\r\n", b"1;a=b\r\na\r\n", b"0", b";", b" ", b"0\r\n", b"a:b\r\n"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",),
        (b"", b"\r\n\r\n"),
        200_000,
    ),
    "query": Parser(
        lambda value: dict(request({}, value).query_params),
        (*TEXT, b"a=1&", b"&", b"%5B", b"%", b"%C3", b"metadata=&"),
        most=HEAD,
    ),
    "options": Parser(
        text(lambda value: options_from_query({"metadata": value, "max_failures": value})),
        (*TEXT, b'{"a":', b'"a",', b"[1,", b'"a":1,', b"1", b"-", b"1e", b"\\u0041", b"\\"),
        (b"", b"{", b'{"a":"', b'{"a":[', b'{"a":'),
        (b"}", b""),
        HEAD,
    ),
    "If-None-Match": Parser(
        text(lambda value: 'W/"a"' in map(str.strip, value.split(","))), TEXT, most=HEAD
    ),
    "Prefer": Parser(
        text(WAIT.search),
        (*TEXT, b"wait=", b"wait=1", b"wait", b",", b", wait", b'wait="1'),
        most=HEAD,
    ),
    "Accept": Parser(
        text(lambda value: choose(None, value)),
        (*TEXT, b"*/*,", b"text/csv;", b";q=0.1", b"q = ", b"1", b"q=0."),
        (b"", b"a;", b"a;q=", b"*/*;q=0."),
        (b"", b";q=1", b"x"),
        HEAD,
    ),
    "Content-Type": Parser(
        lambda value: content_type(request({"content-type": value})), TEXT, most=HEAD
    ),
    "boundary": Parser(
        text(lambda value: list(read_parts(BytesIO(b""), value, 1))),
        TEXT,
        (b"multipart/form-data;", b'multipart/form-data; boundary="'),
        (b"", b'"', b";boundary=b"),
        HEAD,
    ),
    "Host and Origin": Parser(
        text(host), (*TEXT, b"1.", b"1:"), (b"", b"http://", b"[", b"http://["), (b"", b"]"), HEAD
    ),
    "cursor": Parser(
        text(cursors.index), (*TEXT, b"aW5kZXg6", b"MTEx", b"="), (b"", b"aW5kZXg6"), most=HEAD
    ),
    "URL": Parser(
        text(lambda value: (url_problem(value), parse_url(value))),
        (*TEXT, b"/../", b"/a/..", b"xn--", b"%2E%2E/", b"1.", b"0x", b"a."),
        (b"http://", b"http://h/", b"http://[", b"http://h/?", b"http://u@", b"http://xn--"),
        (b"", b"]/"),
        URL_CHARS,
    ),
    "S3 URL": Parser(text(lambda value: source_problem(value, ())), TEXT, (b"s3://",), most=HEAD),
    "file name": Parser(text(unescaped), (*TEXT, b"%0D", b"%%22"), most=HEAD),
    # Bodies.
    "JSON": Parser(
        body(lambda file, received: add_json(read_json(file), received)),
        (b'"http://h/",', b'"",', b"1,", b"[", b'{"a":', b" ", b"1", b'{"a":1},', b"1e", b"\\"),
        (b'{"urls":[', b'{"metadata":{"a":'),
        (b'"x"]}', b"}}"),
    ),
    "JSON items": Parser(
        body(lambda file, received: add_json(read_json(file), received)),
        (ITEM + b"},", ITEM + b',"columns":{"a":"b"}},', ITEM + b',"a":1},', b'"a":1,', b'"'),
        (b'{"items":[', b'{"items":[{'),
        (ITEM + b"}]}",),
    ),
    "JSON text": Parser(
        body(lambda file, received: add_json(read_json(file), received)),
        (b"a", b"\\u0041", b"\\n", b"\xff", b"\xc3\xa9", b"\\"),
        (b'{"name":"', b'{"urls":["', b'"'),
        (b'"]}',),
    ),
    "NDJSON": Parser(
        body(add_ndjson),
        (
            *(ITEM + b"}\n", ITEM + b',"id":"a"}\n', b"\n", b" ", b"[", b"{", b"x\n", b"1"),
            *(ITEM + b',"a":1}\n', ITEM + b',"columns":{"a":"b","c":"d"}}\n', b"\r", b"\xff"),
        ),
        (b"", ITEM + b',"columns":{"a":"'),
    ),
    "CSV": Parser(
        body(csv),
        (b"http://h/\n", b"http://h/,", b",", b'"', b'"\n",', b",\n", b"\n", b"\r", b"x", b";"),
        (b"url\n", b'url,"\n",', b'url\n"', b"sep=,"),
        (b"", b'"\n",x\n'),
    ),
    "CSV cells": Parser(
        body(csv),
        (b'"a\nb",', b'"\n"\n', b'"a\n://,",', b'"://\n://",', b"\xff", b" ", b"\t", b'"a",'),
        (b"url,a\n", b"url,"),
        (b"", b"\n"),
    ),
    "form": Parser(
        body(form),
        (
            *(
                b"--b\r\n",
                b"\r\n--b",
                b"\r\n--",
                b"\r\n",
                b"\r",
                b"-",
                b"a: b\r\n",
                b"a",
                b";",
                b'"',
            ),
            b'\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
            b"\xff\xd8\xff",
            b"\r\n--b \r\n\r\n",
        ),
        (
            *(b"", b"--b\r\n", b"--b\r\nContent-Disposition: form-data; name="),
            b'--b\r\nContent-Disposition: form-data; name="options"\r\n\r\n',
        ),
        (b"", b"\r\n--b--\r\n"),
    ),
    # What hosts answer.
    "Retry-After": Parser(
        text(retry_after_s),
        (*TEXT, b"Mon, 01 Jan ", b"9", b"00:", b"+"),
        (b"", b"Mon, "),
        most=LOCATION,
    ),
    "Location": Parser(
        text(location),
        (*TEXT, b"/../", b"/a/..", b"xn--", b"a.", b"1.", b"%2E%2E/", b"%C3"),
        (b"", b"/", b"//", b"http://", b"http://[", b"?", b"http://xn--", b"http://a:"),
        (b"", b"/", b"]/"),
        LOCATION,
    ),
    "Set-Cookie": Parser(
        set_cookie,
        (*TEXT, b"a=b; ", b"expires=Mon, ", b"path=/ ", b"Wed Jun  ", b"\\0"),
        (b"", b"a=", b'a="', b"a=b;", b"a=b; path=", b'a=b; path="', b"a=b; expires=Mon, "),
        (b"", b'"', b'";', b"\xe9"),
        LOCATION,
    ),
    "address": Parser(
        text(lambda value: (is_disguised_ipv4(value), may_dial(value, ()))),
        (*TEXT, b"0x", b"1.", b"1:"),
        most=HEAD,
    ),
    # Pictures: their kind, their headers, and what the decoders do with their parts.
    "kind of a file": Parser(
        lambda value: (detect_format(value), describe_other(value), is_truncated(value)),
        (*TEXT, b"\xff\xd9", b"mif1", b"avi", b"<!--", b"<s", b"\n", b"IEN"),
        (b"", b"\0\0\0\0ftypmif1", b"<?xml", b"  <!--", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"),
    ),
    "JPEG header": Parser(
        requirements("JPEG"),
        (
            *(b"\xff", b"\xff\0", b"\xff\xd0", b"\xff\xd8", b"\0", b"\xff\xff\0", b"\xff\xda\0\2"),
            *(b"\xff\xc0\0\2", b"\xff\xc2\0\x08\x08\0\1\0\1\xff", b"\xff\xe1\0\2", b"a"),
        ),
        (b"\xff\xd8", JPEG[:-2]),
        (b"", b"\0\xff\xd9"),
    ),
    "PNG header": Parser(
        requirements("PNG"),
        tuple(hostile.chunk(name, b"") for name in (b"tEXt", b"IDAT", b"prVt", b"IHDR")),
        (PNG[:33], PNG),
    ),
    "GIF header": Parser(
        requirements("GIF"),
        (b"!", b"\1a", b"\0", b"!\xfe\1a\0", b"!\xff\x0bNETSCAPE2.0\0", b"x", b";", b","),
        (GIF[:13], GIF[:13] + b"!\xfe"),
    ),
    "TIFF header": Parser(
        requirements("TIFF"),
        tuple(struct.pack("<HHII", tag, 4, 3, 8) for tag in (256, 258, 273, 999)),
        (b"II*\0\x08\0\0\0\xff\xff", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0\xff\xff\0\0\0\0\0\0"),
    ),
    "AVIF header": Parser(
        requirements("AVIF"),
        (
            b"ispe",
            b"ispe\0\0\0",
            b"ispe\0\0\0\0\0\0\0\1\0\0\0\1",
            b"av1C",
            b"av1C\0\0\0",
            b"\0",
            b"i",
        ),
        (AVIF, b""),
    ),
    "JPEG 2000 header": Parser(
        requirements("JPEG2000"), (b"\xff", b"\xff\x4f", b"\xff\x4f\xff"), (JPEG2000, b"")
    ),
    "repair": Parser(
        lambda value: (
            repair.has_all_scans(value),
            repair.without_damaged_chunks(value),
            repair.tiff_kind(value),
        ),
        (
            *(
                b"\xff",
                b"\xff\xda\0\2\xff",
                b"\xff\xc0\0\2",
                b"\0",
                hostile.chunk(b"tEXt", b"")[:-1] + b"x",
            ),
            *(struct.pack("<HHII", tag, kind, 1, 8) for tag in (256, 999) for kind in (2, 3, 5)),
        ),
        (b"\xff\xd8", PNG[:33], b"II*\0\x08\0\0\0\xff\xff"),
    ),
    "description": Parser(
        described,
        (*TEXT, b"min=1\n", b"min=", b"\n", b"SignificantBits=", b'SignificantBits="12"'),
        (b"ImageJ=\n", b"ImageJ=\nmin=", b'SignificantBits="'),
        (b"", b"\n", b"x y"),
        400_000,
    ),
    "JPEG": Parser(
        decoded("JPEG"),
        (
            *(b"\0", b"\xff", b"\xff\0", SMALL(0xEF, b""), SMALL(0xE1, b"Exif\0\0" + b"a" * 34)),
            *(
                SMALL(0xE2, b"ICC_PROFILE\0\1\1"),
                SMALL(0xFE, b"a"),
                SMALL(0xE2, b"MPF\0II*\0\x08\0\0\0"),
            ),
            *(SMALL(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\0"), SMALL(0xDD, b"\0\1")),
            *(SMALL(0xE1, b"http://ns.adobe.com/xap/1.0/\0x"), SMALL(0xDB, b"\0" + b"\1" * 64)),
            SMALL(0xE0, b"JFIF\0" + b"\1" * 9),
        ),
        (b"\xff\xd8",),
        (JPEG[2:], JPEG[2:-2]),
    ),
    "PNG": Parser(
        decoded("PNG"),
        (
            *(
                hostile.chunk(b"tEXt", b"a\0b"),
                hostile.chunk(b"prVt", b""),
                hostile.chunk(b"IDAT", b""),
            ),
            *(hostile.chunk(b"acTL", b"\0" * 8), hostile.chunk(b"fcTL", b"\0" * 26)),
            *(hostile.chunk(b"eXIf", b"II*\0" + b"\0" * 40), hostile.chunk(b"tRNS", b"\0" * 6)),
            *(hostile.chunk(b"sBIT", b"\x08" * 3), hostile.chunk(b"pHYs", b"\0" * 9)),
            hostile.chunk(b"prVt", b"")[:-1] + b"x",
        ),
        (PNG[:33],),
        (PNG[33:],),
    ),
    "GIF": Parser(
        decoded("GIF"),
        (
            b"!\xfe\1a\0",
            b"!\xfe\0",
            b"!\xf9\4\0\0\0\0\0",
            b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0",
            b"x",
            b"!\0\1a\0",
        ),
        (GIF[:781],),
        (GIF[781:],),
    ),
    "WebP": Parser(
        decoded("WEBP"),
        (b"ABCD\0\0\0\0", b"EXIF\4\0\0\0aaaa", b"XMP \2\0\0\0aa", b"ALPH\0\0\0\0", b"\0"),
        (WEBP[:12] + b"VP8X\x0a\0\0\0\0\0\0\0\x2f\0\0\x1f\0\0", WEBP),
        (WEBP[12:],),
    ),
    "AVIF": Parser(decoded("AVIF"), (BOX, b"\0", struct.pack(">I4s", 8, b"mdat")), (AVIF,)),
    "HEIF": Parser(decoded("HEIF"), (BOX, b"\0", struct.pack(">I4s", 8, b"mdat")), (HEIF,)),
    "JPEG 2000": Parser(
        decoded("JPEG2000"),
        (b"\xff\x64\0\5\0\1a", b"\xff\x90\0\x0a\0\0\0\0\0\0\0\1", b"\0", b"\xff\xd9"),
        (JPEG2000, JPEG2000[:-2]),
        (b"", b"\xff\xd9"),
    ),
}


@pytest.mark.parametrize("name", PARSERS)
def test_twice_the_input_takes_at_most_two_and_a_half_times_as_long(name: str) -> None:
    parser = PARSERS[name]
    assert not [
        f"{shape}: {problem}"
        for shape, make in parser.inputs()
        if (problem := too_fast_growth(parser.read, make, parser.most))
    ]
