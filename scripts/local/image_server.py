"""A minimal HTTP server on loopback for images that workers fetch."""

import asyncio
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable
from typing import Self
from urllib.parse import quote, unquote

from aiohttp import web

from worker.fetching.loop_thread import LoopThread


class ImageServer:
    """Answers /<name> with `payload_of(name)`, or 404 for None, after `delay_s`.

    It runs inside a `with` block; `request_count` counts the requests.
    """

    def __init__(self, payload_of: Callable[[str], bytes | None], delay_s: float = 0) -> None:
        self.request_count = 0
        self.port = 0
        self._payload_of = payload_of
        self._delay_s = delay_s

    def url_of(self, name: str) -> str:
        """The URL of the image of this name."""
        return f"http://127.0.0.1:{self.port}/{quote(name, safe='')}"

    def __enter__(self) -> Self:
        self._loop = LoopThread("image-server")
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(accept_no_more([self._listening]))
        self._loop.close(self._runner.cleanup())

    async def _start(self) -> None:
        # Without a router, to use little CPU.
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0)
        await self._runner.setup()
        self._listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, self._listening, backlog=1024).start()
        self.port = self._runner.addresses[0][1]

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.request_count += 1
        await asyncio.sleep(self._delay_s)
        payload = self._payload_of(unquote(request.raw_path.removeprefix("/")))
        if payload is None:
            return web.Response(status=404)
        return web.Response(body=payload, content_type="image/jpeg")


async def accept_no_more(listening: Iterable[socket.socket | TransportSocket]) -> None:
    """Stop accepting connections, and let the server begin with those that it has accepted.

    asyncio loses them if the server is closed first, and Python warns of sockets left open.
    """
    loop = asyncio.get_running_loop()
    for one in listening:
        loop.remove_reader(one)
    await asyncio.sleep(0.01)
