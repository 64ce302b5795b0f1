"""An id for every request: in its response, its errors and its log lines."""

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"
_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Health checks and scrapes request these every few seconds.
QUIET = ("/healthz", "/readyz", "/metrics")

log = structlog.get_logger()


class RequestId:
    """ASGI middleware that gives each request an id: the caller's, if valid, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request and log its outcome, without its query string."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _VALID.fullmatch(given) else uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        # If an exception passes through here, the response outside of this middleware is 500.
        started, status = time.monotonic(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path not in QUIET:
                log.info(
                    "request",
                    method=scope["method"],
                    path=path,
                    status=status,
                    ms=round((time.monotonic() - started) * 1000),
                )


def current_request_id() -> str | None:
    """Return the id of the current request."""
    request_id: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return request_id
