"""The pages: the web page at /, a single file, and the documentation of the API at /docs."""

from functools import cache
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from api.middleware.security_headers import POLICY, page_policy

PATH = Path(__file__).parents[1] / "static" / "index.html"
# Swagger UI, from the package fastapi-offline.
_FILES = "docs/files"

router = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Make `app` serve the pages."""
    app.include_router(router)
    app.mount(f"/{_FILES}", StaticFiles(packages=[("fastapi_offline", "static")]))


@router.get("/")
def page() -> HTMLResponse:
    """Return the web page; it loads no other file."""
    return _response(*_page())


@router.get("/docs")
def documentation() -> HTMLResponse:
    """Return the documentation; its addresses are relative, so that they work below any path."""
    return _response(*_documentation())


@cache
def _page() -> tuple[str, str]:
    """Read the page and make its policy."""
    html = PATH.read_text()
    return html, page_policy(html, images="blob: data:")


@cache
def _documentation() -> tuple[str, str]:
    answer = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Piqueue",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{_FILES}/favicon.png",
    )
    html = bytes(answer.body).decode()
    return html, page_policy(html, images="'self' blob: data:", files="'self'")


def _response(html: str, policy: str) -> HTMLResponse:
    return HTMLResponse(html, headers={POLICY: policy, "Cache-Control": "no-cache"})
