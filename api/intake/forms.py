"""Reads multipart forms, part by part."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import IO
from urllib.parse import unquote

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from worker.jobs.errors import BodyUnreadable

READ_BYTES = 1 << 18
# Of the headers of one part: a file name may be as long as the id of an item, percent-encoded.
MAX_HEADER_BYTES = 32_768
MAX_HEADERS = 100
MAX_BOUNDARY_BYTES = 256
SHOWN_BYTES = 40
# What the parser says of a limit, and what is said instead.
_LIMITS = {
    "Maximum header size exceeded": "a part of the form has a header of more than "
    f"{MAX_HEADER_BYTES} bytes: shorten it, or the name of the file",
    "Maximum header count exceeded": f"a part of the form has more than {MAX_HEADERS} headers: "
    "send fewer",
}
_AS_IT_IS = (b"", b"7bit", b"8bit", b"binary")
_ESCAPED = re.compile("%(22|0A|0D)")


@dataclass
class Part:
    """A part of a form; it is a file if it has a `filename`."""

    name: str = ""
    filename: str | None = None
    content: bytearray = field(default_factory=bytearray)


class _Parts:
    """Receives the events of the parser."""

    def __init__(self, max_bytes: int) -> None:
        self.done: deque[Part] = deque()
        self.complete = False
        self._max_bytes = max_bytes
        self._part = Part()
        self._header_name = self._header_value = b""
        self._disposition = self._transfer_encoding = b""

    def on_part_begin(self) -> None:
        self._part, self._disposition, self._transfer_encoding = Part(), b"", b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        elif self._header_name.lower() == b"content-transfer-encoding":
            self._transfer_encoding = self._header_value.strip().lower()
        self._header_name = self._header_value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BodyUnreadable(
                "a part of the form has no name: give each a Content-Disposition with a name"
            )
        self._part.name = _decoded(options[b"name"])
        if b"filename" in options:
            name = _extended_filename(self._disposition)
            self._part.filename = name or unescaped(_decoded(options[b"filename"]))

        if self._transfer_encoding not in _AS_IT_IS:
            raise BodyUnreadable(
                f"a part {self._part.name!r} of the form has the Content-Transfer-Encoding "
                f"{_shown(self._transfer_encoding)}: send its bytes unchanged, without that header"
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        room = self._max_bytes + 1 - len(self._part.content)
        self._part.content += data[start : min(end, start + room)]

    def on_part_end(self) -> None:
        self.done.append(self._part)

    def on_end(self) -> None:
        self.complete = True


def read_parts(file: IO[bytes], content_type: str, max_bytes: int) -> Iterator[Part]:
    """Give the parts of a form; of the content of each, at most `max_bytes` and one byte more.

    Raises:
        BodyUnreadable: it is no form, or ends early.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise BodyUnreadable(
            "the Content-Type of the form has no boundary, or one of more than "
            f"{MAX_BOUNDARY_BYTES} bytes: let the HTTP client write that header"
        )
    delimiter = b"--" + boundary
    _check_beginning(file.read(len(delimiter) + SHOWN_BYTES), delimiter)
    file.seek(0)
    parts = _Parts(max_bytes)
    callbacks = {name: getattr(parts, name) for name in dir(parts) if name.startswith("on_")}
    parser = MultipartParser(
        boundary,
        callbacks,  # type: ignore[arg-type]
        max_header_count=MAX_HEADERS,
        max_header_size=MAX_HEADER_BYTES,
    )
    parsed_bytes, end, line = 0, b"", b"\r\n" + delimiter
    try:
        while block := file.read(READ_BYTES):
            parser.write(block)
            while parts.done:
                yield parts.done.popleft()
            parsed_bytes += len(block)
            end = end[-len(line) - 2 :] + block
            if parts.complete:
                break
        parser.finalize()
    except MultipartParseError as error:
        raise BodyUnreadable(
            _LIMITS.get(str(error))
            or f"the form is malformed at byte {parsed_bytes + error.offset}: let the HTTP client "
            "build it"
        ) from None
    if not parts.complete:
        raise BodyUnreadable("the form ends before its closing boundary: send it again")
    if line in (end + file.read(READ_BYTES)).partition(line + b"--")[2]:
        raise BodyUnreadable(
            "the form has parts after its closing boundary, which nobody would read: send one form"
        )


def _check_beginning(head: bytes, delimiter: bytes) -> None:
    """Raise BodyUnreadable if a form does not begin with its boundary and CRLF."""
    found, shown = head.removeprefix(b"\r\n"), _shown(delimiter)
    if head and not found.startswith(delimiter):
        raise BodyUnreadable(
            f"the form begins with {_shown(head[:SHOWN_BYTES])}, and not with the boundary {shown} "
            "that its Content-Type names: let the HTTP client write both"
        )
    if found.removeprefix(delimiter).startswith(b"\n"):
        raise BodyUnreadable(
            f"the line {shown} of the form ends with LF: write CRLF at the end of each of its lines"
        )


def _shown(text: bytes) -> str:
    return repr(text.decode("latin-1"))


def _extended_filename(disposition: bytes) -> str | None:
    """Read the parameter `filename*`, in which .NET sends the name that `filename` has encoded."""
    if b"*" not in disposition:
        return None
    message = Message()
    message["content-disposition"] = disposition.decode("latin-1")
    for name, value in message.get_params([], "content-disposition"):
        if name == "filename" and isinstance(value, tuple):
            return collapse_rfc2231_value(value)
    return None


def unescaped(name: str) -> str:
    """Return the name of a file as its sender has it.

    Browsers, curl and Python's clients percent-encode quotes and line breaks in it, as the HTML
    standard says, and no other character.
    """
    return _ESCAPED.sub(lambda found: unquote(found[0]), name)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
