"""The connections of the API, with limits for peers that are slow, silent or hostile."""

import asyncio
import re
import resource
import sys
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import h11
from h11 import _readers
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from api.errors import MEDIA_TYPE, problem_body
from api.middleware.security_headers import SAFE
from worker.jobs.settings import Settings

MAX_HEAD_BYTES = 32_768
# Heads arrive in parts of this size, because h11 only limits those that are incomplete.
HEAD_PART_BYTES = 4096
# A chunk of a few bytes takes as long as a large one. Bodies of such chunks, by the bytes for each
# of their line breaks, are received in parts, with pauses that leave others half of the processor.
CHUNKS_PART_BYTES, LINE_BYTES = 2048, 64
# A peer may take this long to read some of a response.
STALL_S = 120
# Each upload may have a temporary file, and the process has others.
_OTHER_FILES = 200

# h11 tries every way to divide the spaces of a header with an invalid character between the two
# patterns for spaces, which takes seconds for 32 KB. Here, the first one keeps all that it matches.
_readers.header_field_re = re.compile(
    _readers.header_field_re.pattern.replace(rb":[ \t]*", rb":[ \t]*+", 1)
)


class _Flow(FlowControl):
    """Reads nothing while `paused_for_others`, whatever a request asks for."""

    paused_for_others = False

    def resume_reading(self) -> None:
        if not self.paused_for_others:
            super().resume_reading()


class Connection(H11Protocol):
    """A connection that closes when its peer takes too long to send a request or to read.

    When as many are open as the settings allow, the one that is idle for the longest time gives way
    to a new one; if none is idle, the new one is refused.
    """

    flow: _Flow
    # How many connections wait until they may receive more of such a body.
    _deferred_count = 0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings: Settings = config.app.state.services.settings  # type: ignore[union-attr]
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._idle_since = self.loop.time()
        self._is_chunked = False
        self._rest = b""  # received, and deferred

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, and expect a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._expect_head()
        if len(self.connections) <= self._settings.max_connections:
            return
        others = [
            other
            for other in self.connections
            if isinstance(other, Connection) and other.idle and other is not self
        ]
        if others:
            min(others, key=lambda other: other._idle_since).transport.abort()
        else:
            self._refuse(503, "too_many_connections", "too many connections: try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        super().connection_lost(exc)
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request, or more than one request."""
        if self._rest:
            self._rest += data
            return
        while data and not self.transport.is_closing():
            size = len(data)
            if self.conn.their_state is h11.IDLE:
                size = HEAD_PART_BYTES
                if not self.conn.trailing_data[0]:
                    data = data.lstrip(b"\r\n")  # as RFC 9112, 2.2 recommends
            elif self.conn.their_state is h11.DONE and size > MAX_HEAD_BYTES:
                # Requests that are sent ahead wait in a buffer, where nothing else limits them.
                self.transport.abort()
                return
            elif self._is_in_small_chunks(data):
                started = time.perf_counter()
                super().data_received(data[:CHUNKS_PART_BYTES])
                if not self.transport.is_closing():
                    self._defer(data[CHUNKS_PART_BYTES:], time.perf_counter() - started)
                return
            if self.idle and self._head_timer is None:
                self._expect_head()
            super().data_received(data[:size])
            data = data[size:]

    def _is_in_small_chunks(self, data: bytes) -> bool:
        return (
            self._is_chunked
            and self.conn.their_state is h11.SEND_BODY
            and data.count(b"\r\n") * LINE_BYTES > len(data) > CHUNKS_PART_BYTES
        )

    def _defer(self, rest: bytes, took_s: float) -> None:
        """Receive the rest later, and read nothing before; the part before it took `took_s`."""
        self._rest = rest
        self.flow.paused_for_others = True
        self.flow.pause_reading()
        Connection._deferred_count += 1
        self.loop.call_later((2 * Connection._deferred_count - 1) * took_s, self._receive_rest)

    def _receive_rest(self) -> None:
        Connection._deferred_count -= 1
        rest, self._rest = self._rest, b""
        self.data_received(rest)
        if not self._rest and not self.transport.is_closing():
            self.flow.paused_for_others = False
            self.flow.resume_reading()

    def handle_events(self) -> None:
        """Handle what was received; it may begin a request."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._begin_request()

    def _begin_request(self) -> None:
        """Prepare a request, before its task runs."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if not self.scope["path"].startswith(("/", "*")):
            # A server accepts the absolute form too (RFC 9112, 3.2.2), which h11 does not split.
            self.scope["path"] = urlsplit(self.scope["path"]).path or "/"
        # The API reads no cookies, but FastAPI does, in quadratic time.
        self.scope["headers"] = [header for header in self.headers if header[0] != b"cookie"]
        names = {name for name, _ in self.headers}
        self._is_chunked = b"transfer-encoding" in names
        if {b"content-length", b"transfer-encoding"} <= names:
            # Somebody may smuggle a request past a proxy (RFC 9112, 6.1).
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Become idle, or begin with the next request."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait until the peer has read more."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on, because the peer has read almost everything."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()

    def _watch(self, unread_bytes: int) -> None:
        """Close the connection unless the peer reads some of `unread_bytes` in time."""

        def check() -> None:
            left_bytes = self.transport.get_write_buffer_size()
            if left_bytes >= unread_bytes:
                self.transport.abort()
            else:
                self._watch(left_bytes)

        self._stall_timer = self.loop.call_later(STALL_S, check)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.request_timeout_s, self._too_slow)

    def _too_slow(self) -> None:
        """Close a connection without a complete request; one that has answered already, at once."""
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            limit_s = self._settings.request_timeout_s
            detail = f"the headers of the request did not arrive within {limit_s:g} s"
            self._refuse(408, "request_timeout", detail)
        else:
            self.transport.abort()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what is no request with a problem, and close the connection."""
        body = problem_body(status, code, detail).model_dump_json(exclude_none=True).encode()
        safe = "".join(f"{name}: {value}\r\n" for name, value in SAFE.items())
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n{safe}Retry-After: 5\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP/1.1; the base class calls this while it handles why."""
        error = sys.exc_info()[1]
        if not self.idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        if getattr(error, "error_status_hint", 400) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            detail = f"the request line and the headers have more than {MAX_HEAD_BYTES} bytes"
            self._refuse(431, "headers_too_large", f"{detail}: send fewer or shorter ones")
        else:
            reason = str(error or msg).partition(": bytearray")[0]
            self._refuse(
                400,
                "bad_request",
                f"the request is not HTTP/1.1 ({reason}): correct it; TLS, HTTP/2 and the PROXY "
                "protocol end at a proxy in front of the API",
            )

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a server may ignore an offer of another protocol (RFC 9110, 7.8)."""


def allow_open_files(connections: int) -> None:
    """Raise the limit of open files of this process as far as this many connections need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
