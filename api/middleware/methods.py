"""HEAD for every route that has GET, and the methods that a path allows."""

from anyio import CancelScope
from starlette.requests import Request
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class HeadAsGet:
    """ASGI middleware that answers HEAD with the status and headers of GET, and without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and end its response where the body begins."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # The server needs the scope as it was; the metrics need the route.
        as_get = {**scope, "method": "GET"}
        with CancelScope() as body:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    scope["route"] = as_get.get("route")
                    await send(message)
                else:
                    await send({"type": "http.response.body"})
                    body.cancel()

            await self._app(as_get, receive, send_head)


def allowed_methods(request: Request) -> str:
    """Return the value of `Allow` for the path of a request."""
    found = [
        method
        for method in _METHODS
        for route in request.app.router.routes
        # The files of a mounted folder can only be read.
        if (method == "GET" or not isinstance(route, Mount))
        and route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    return ", ".join([*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"])
