"""Headers that limit what a browser does with a response."""

import base64
import hashlib
import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "Content-Security-Policy"
# Of a response that is no page: nothing of it may run or be framed.
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    POLICY: "default-src 'none'; frame-ancestors 'none'",
}


class SecurityHeaders:
    """ASGI middleware that adds these headers to every response that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safe)


def page_policy(html: str, images: str, files: str = "") -> str:
    """Make the policy of a page: its own inline scripts and styles, and requests to its server.

    `images` and `files` are the sources of images, and of further scripts and styles.
    """
    rules = {
        "default-src": "'none'",
        "script-src": _sources(html, "script", files),
        "style-src": _sources(html, "style", files),
        "img-src": images,
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{rule} {value}" for rule, value in rules.items())


def _sources(html: str, tag: str, files: str) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    )
    return " ".join([*(f"'sha256-{digest}'" for digest in hashes), *files.split()]) or "'none'"
