"""Forms as careless and hand-made clients send them, and what is said of those that are refused."""

from io import BytesIO

import pytest

from api.intake import forms
from api.intake.forms import Part, read_parts
from piqueue.requests import Request
from piqueue.types import Job
from worker.jobs.errors import BodyUnreadable

KIND = "multipart/form-data; boundary=BB"
END = b"--BB--\r\n"


def file(content: bytes, name: str = "a.jpg", headers: bytes = b"") -> bytes:
    disposition = f'form-data; name="files"; filename="{name}"'.encode()
    return b"--BB\r\nContent-Disposition: %b\r\n%b\r\n%b\r\n" % (disposition, headers, content)


def parts(form: bytes, kind: str = KIND) -> list[Part]:
    return list(read_parts(BytesIO(form), kind, 1000))


# Each says what is there and what to do, in no library's words.
REFUSALS = {
    "preamble": (
        b"This is a form.\r\n" + file(b"1") + END,
        ["begins with 'This is a form", "boundary '--BB'", "let the HTTP client"],
    ),
    "other boundary": (file(b"1").replace(b"BB", b"CC"), ["begins with '--CC", "'--BB'"]),
    "line feeds": (file(b"1").replace(b"\r\n", b"\n"), ["'--BB'", "ends with LF", "write CRLF"]),
    "long header": (
        file(b"1", headers=b"X: " + b"x" * 33_000 + b"\r\n") + END,
        ["a header of more than 32768 bytes", "shorten"],
    ),
    "many headers": (
        file(b"1", headers=b"X: 1\r\n" * 101) + END,
        ["more than 100 headers", "send fewer"],
    ),
    "no part": (b"--BB\r\n" + END, ["malformed at byte 12", "let the HTTP client"]),
    "cut": (file(b"1"), ["ends before its closing boundary", "send it again"]),
    "two forms": (
        file(b"1") + END + file(b"2") + END,
        ["parts after its closing boundary", "send one form"],
    ),
    "base64": (
        file(b"MQ==", headers=b"Content-Transfer-Encoding: BASE64\r\n") + END,
        ["a part 'files'", "Content-Transfer-Encoding 'base64'", "send its bytes unchanged"],
    ),
    "no name": (b"--BB\r\nX: 1\r\n\r\n1\r\n" + END, ["a part of the form has no name", "give"]),
}


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 18])
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_form_names_the_place_and_what_to_do(
    kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, says = REFUSALS[kind]
    if kind != "two forms":
        monkeypatch.setattr(forms, "READ_BYTES", block)
    with pytest.raises(BodyUnreadable) as refused:
        parts(form)
    for text in says:
        assert text in str(refused.value), str(refused.value)


@pytest.mark.parametrize("kind", ["multipart/form-data", f"{KIND}{'B' * 255}"])
def test_a_form_without_a_usable_boundary_says_so(kind: str) -> None:
    with pytest.raises(BodyUnreadable, match="has no boundary, or one of more than 256 bytes"):
        parts(file(b"1") + END, kind)


def test_what_the_standard_allows_is_read() -> None:
    content = b"\r\n--B\n--BB--\r\n --BB"  # no line of it is the boundary
    form = b"\r\n" + file(content, "x" * 5000, b"Content-Transfer-Encoding: binary\r\n") + END
    (part,) = parts(form + b"an epilogue\r\n")
    assert (len(part.filename or ""), bytes(part.content)) == (5000, content)


def test_every_character_of_a_file_name_arrives() -> None:
    names = ["a.jpg", 'a"b', "a%22b", "%0A", "a\nb", "a\r\n", "tab\t", "\x1b", "a\\b", "é;ü", " "]
    names += ["", "a=b; filename=c", "=?utf-8?B?YQ==?=", "日本", "-", "%", "\x7f", "'a'"]
    request = Request(Job, "POST", "/jobs", files={name: name.encode() for name in names})
    arguments = request.arguments()
    found = parts(arguments["content"], arguments["headers"]["Content-Type"])
    assert [part.filename for part in found] == names
    assert [part.content.decode() for part in found] == names
