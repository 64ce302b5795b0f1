"""Refuses request bodies that are too large, compressed or too slow, with a problem."""

import asyncio
import re
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.jobs.settings import Settings

# The routes that take pictures or items; bodies of others have a few fields.
_LARGE = re.compile(r"/jobs(/[^/]+/items)?$|/scorefile/$")
SMALL_BYTES = 65_536
# Each second of waiting for the client must bring this much, after `request_timeout_s`,
MIN_BYTES_PER_S = 1000
# and no client may be waited for longer than this.
MAX_WAIT_S = 7200


class BodyLimit:
    """ASGI middleware that stops reading a body that is larger or slower than the settings allow.

    It also refuses any Content-Encoding. Only the time in which it waits for the client counts.
    FastAPI's `max_body_size` answers a large Content-Length with plain text.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._max_bytes = settings.max_request_bytes
        self._timeout_s = settings.request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; reading its body may raise HTTPException 408, 413 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, complete = Headers(scope=scope), False
        encodings = ", ".join(headers.getlist("content-encoding")).lower().strip(", ")
        encoding = encodings or "identity"
        declared = headers.get("content-length", "")
        max_bytes = self._max_bytes if _LARGE.search(scope["path"]) else SMALL_BYTES
        too_large = declared.isdecimal() and int(declared) > max_bytes
        refusal = HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request is larger than {max_bytes} bytes: send it as several smaller ones",
        )
        received_bytes, waited_s = 0, 0.0

        async def limited() -> Message:
            nonlocal received_bytes, waited_s, complete
            if complete:
                return await receive()
            if too_large:
                raise refusal
            allowed_s = min(self._timeout_s + received_bytes / MIN_BYTES_PER_S, MAX_WAIT_S)
            began = time.monotonic()
            try:
                async with asyncio.timeout(allowed_s - waited_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"{received_bytes} bytes of the body arrived in {allowed_s:.0f} s, which is "
                    "too slow: send it again over a faster connection, or in smaller parts",
                    {"Connection": "close"},
                ) from None
            waited_s += time.monotonic() - began
            complete = not message.get("more_body", False)
            if message.get("body") and encoding != "identity":
                raise HTTPException(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    f"the body has the Content-Encoding {encoding!r}: send it unpacked",
                    {"Accept-Encoding": "identity"},
                )
            received_bytes += len(message.get("body", b""))
            if received_bytes > max_bytes:
                raise refusal
            return message

        await self._app(scope, limited, send)
