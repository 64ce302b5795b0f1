"""Refuses request bodies that are too large or compressed, with a problem."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware that stops reading a body that, or whose Content-Length, is over `max_bytes`.

    It also refuses any Content-Encoding. FastAPI's `max_body_size` answers a large
    Content-Length with plain text.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; reading its body may raise HTTPException 413 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, complete = Headers(scope=scope), False
        encoding = headers.get("content-encoding", "identity").lower()
        declared = headers.get("content-length", "")
        left_bytes = self._max_bytes
        too_large = declared.isdecimal() and int(declared) > left_bytes

        async def limited() -> Message:
            nonlocal left_bytes, complete
            if complete:
                return await receive()
            if too_large:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            message = await receive()
            complete = not message.get("more_body", False)
            if message.get("body") and encoding != "identity":
                raise HTTPException(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    f"the body has the Content-Encoding {encoding!r}: send it unpacked",
                    {"Accept-Encoding": "identity"},
                )
            left_bytes -= len(message.get("body", b""))
            if left_bytes < 0:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self._app(scope, limited, send)
