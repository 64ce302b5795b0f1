"""GET /: the web page, a single file that loads no others."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PATH = Path(__file__).parents[1] / "static" / "index.html"

router = APIRouter()


@router.get("/", include_in_schema=False)
def page() -> HTMLResponse:
    """Return the page, with a policy that allows its own script and requests to this API only."""
    html, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(html, headers=headers)


@cache
def _page() -> tuple[str, str]:
    """Read the page and make its policy."""
    html = PATH.read_text()
    return html, policy_of(html, images="blob: data:")


def policy_of(html: str, images: str) -> str:
    """Make a policy that allows a page's one script and style, `images`, and its own server."""
    rules = {
        "default-src": "'none'",
        "script-src": _hash(html, "script"),
        "style-src": _hash(html, "style"),
        "img-src": images,
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{rule} {value}" for rule, value in rules.items())


def _hash(html: str, tag: str) -> str:
    """Return the source expression of the only inline element of this kind."""
    (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
