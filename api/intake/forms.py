"""Reads multipart forms, part by part."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from worker.jobs.errors import BodyUnreadable

READ_BYTES = 1 << 18


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
        self._header_name = self._header_value = self._disposition = b""

    def on_part_begin(self) -> None:
        self._part, self._disposition = Part(), b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
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
            self._part.filename = name or _decoded(options[b"filename"])

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
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BodyUnreadable(
            "the Content-Type of the form has no boundary: let the HTTP client write that header"
        )
    parts = _Parts(max_bytes)
    callbacks = {name: getattr(parts, name) for name in dir(parts) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        while block := file.read(READ_BYTES):
            parser.write(block)
            while parts.done:
                yield parts.done.popleft()
        parser.finalize()
    except FormParserError as error:
        raise BodyUnreadable(
            f"the form cannot be read ({error}): let the HTTP client build it"
        ) from None
    if not parts.complete:
        raise BodyUnreadable("the form ends before its closing boundary: send it again")


def _extended_filename(disposition: bytes) -> str | None:
    """Read the parameter `filename*`, in which .NET sends the name that `filename` has encoded."""
    message = Message()
    message["content-disposition"] = disposition.decode("latin-1")
    for name, value in message.get_params([], "content-disposition"):
        if name == "filename" and isinstance(value, tuple):
            return collapse_rfc2231_value(value)
    return None


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
