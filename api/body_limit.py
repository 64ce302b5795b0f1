"""The bound on a request's size, by its header where it has one and while it streams in."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.jobs.errors import TooLarge


class BodyLimit:
    """ASGI middleware that makes reading a body over `max_bytes` raise TooLarge."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0
        announced = Headers(scope=scope).get("content-length", "")

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if max(received, int(announced) if announced.isdecimal() else 0) > self._max_bytes:
                raise TooLarge(f"the request is over {self._max_bytes} bytes: send it in parts")
            return message

        await self._app(scope, counted, send)
