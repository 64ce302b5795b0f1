"""A real HTTP server in a thread of its own, for tests; it records its requests."""

import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self

from aiohttp import web

from scripts.local.image_server import accept_no_more
from worker.fetching.loop_thread import LoopThread

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """One request; `target` is the path and query exactly as sent."""

    target: str
    headers: Mapping[str, str]
    connection: object


class Site:
    """Answers a path with the coroutine given for it, and any other with its path as the body.

    `most_open` counts the requests that were being answered at once.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.open = 0
        self.most_open = 0
        self.port = 0
        self._answers = answers or {}
        self._host = host
        self._tls = tls

    def url(self, path: str = "/", host: str | None = None) -> str:
        """Give the URL of `path`, reaching this server by `host` if that is named."""
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host or self._host}:{self.port}{path}"

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` in the server's event loop."""
        self._loop.call(function)

    def __enter__(self) -> Self:
        self._loop = LoopThread("site")
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(accept_no_more([self._listening]))
        self._loop.close(self._runner.cleanup())

    async def _start(self) -> None:
        server = web.Server(self._answer, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0)
        await self._runner.setup()
        self._listening = socket.create_server((self._host, 0))
        await web.SockSite(self._runner, self._listening, ssl_context=self._tls).start()
        self.port = int(self._runner.addresses[0][1])

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.requests.append(Received(request.raw_path, request.headers.copy(), peer))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if answer := self._answers.get(request.path):
                return await answer(request)
            return web.Response(text=request.path)
        finally:
            self.open -= 1
