"""A minimal HTTP server on loopback for images that workers fetch."""

import asyncio
from collections.abc import Callable
from typing import Self
from urllib.parse import quote, unquote

from worker.fetching.loop_thread import LoopThread

_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class ImageServer:
    """Answers /<name> with `payload_of(name)`, or 404 for None, after `delay_s`.

    It runs inside a `with` block; `request_count` counts the requests.
    """

    def __init__(self, payload_of: Callable[[str], bytes | None], delay_s: float = 0) -> None:
        self.request_count = 0
        self.port = 0
        self.payload_of = payload_of
        self.delay_s = delay_s
        self.connections: set[asyncio.Transport] = set()

    def url_of(self, name: str) -> str:
        """The URL of the image of this name."""
        return f"http://127.0.0.1:{self.port}/{quote(name, safe='')}"

    def __enter__(self) -> Self:
        self._loop = LoopThread("image-server")
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close(self._stop())

    async def _start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for transport in self.connections:
            transport.abort()
        await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    """One kept-alive connection; it reads nothing of a request but its path, to use little CPU."""

    def __init__(self, server: ImageServer) -> None:
        self._server = server
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._server.connections.discard(self._transport)

    def data_received(self, received: bytes) -> None:
        *requests, self._unread = (self._unread + received).split(b"\r\n\r\n")
        for request in requests:
            self._server.request_count += 1
            name = unquote(request.split(b" ", 2)[1].decode().removeprefix("/"))
            if self._server.delay_s:
                asyncio.get_running_loop().call_later(self._server.delay_s, self._answer, name)
            else:
                self._answer(name)

    def _answer(self, name: str) -> None:
        payload = self._server.payload_of(name)
        if not self._transport.is_closing():
            head = _NOT_FOUND if payload is None else _HEAD.format(len(payload)).encode()
            self._transport.write(head + (payload or b""))
