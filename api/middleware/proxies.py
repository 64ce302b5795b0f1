"""Requests through a reverse proxy: its path prefix, and the headers that it is trusted for."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.urls import root_path
from worker.jobs.settings import ROOT_PATH

_PREFIX = re.compile(ROOT_PATH)


class BehindProxy:
    """ASGI middleware that makes requests and their redirects those of the proxy's client.

    `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix`, the prefix that the proxy has
    removed from the path, count only if a trusted proxy sends them. Below `prefix`, a path may come
    with or without it.
    """

    def __init__(
        self, app: ASGIApp, prefix: str, trusted: Iterable[IPv4Network | IPv6Network]
    ) -> None:
        # Uvicorn has types of its own for ASGI.
        self._app: Any = ProxyHeadersMiddleware(cast(Any, app), [str(each) for each in trusted])
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with `root_path` in its scope and its path below that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix, removed = self._prefix, not f"{scope['path']}/".startswith(f"{self._prefix}/")
        if scope["client"] and scope["client"][0] in self._app.trusted_hosts:
            # Several proxies in a row each add the prefix that they have removed.
            sent = Headers(scope=scope).getlist("x-forwarded-prefix")
            forwarded = "".join(part.strip().rstrip("/") for part in ",".join(sent).split(","))
            if forwarded and _PREFIX.fullmatch(forwarded):
                prefix, removed = forwarded, True
        scope["root_path"] = prefix
        if removed:
            scope["path"] = prefix + scope["path"]
        root_path.set(prefix)

        async def send_relative(message: Message) -> None:
            # The router redirects to the host and scheme that it sees, which may be the proxy's.
            if message["type"] == "http.response.start" and message["status"] == 307:
                headers = MutableHeaders(scope=message)
                target = urlsplit(headers["location"])
                headers["location"] = target._replace(scheme="", netloc="").geturl()
            await send(message)

        await self._app(scope, receive, send_relative)
