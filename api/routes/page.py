"""The pages: the web page at /, whose files are in api/static, and the documentation at /docs.

The page also has sample photos, where they are installed.
"""

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from api.middleware.security_headers import POLICY, page_policy

FOLDER = Path(__file__).parents[1] / "static"
SAMPLES = Path(__file__).parents[2] / "scripts" / "samples"
# Swagger UI, from the package fastapi-offline.
_FILES = "docs/files"

router = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Make `app` serve the pages."""
    app.include_router(router)
    app.mount("/static", _PageFiles(directory=FOLDER))
    app.mount("/samples", _PageFiles(directory=SAMPLES, check_dir=False))
    app.mount(f"/{_FILES}", StaticFiles(packages=[("fastapi_offline", "static")]))


class _PageFiles(StaticFiles):
    """The files of the web page; a browser asks each time whether they changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or 304 if the browser has it already."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


@router.get("/")
def page() -> HTMLResponse:
    """Return the web page; all that it loads is in /static."""
    return _response(*_page())


@router.get("/samples")
def samples() -> list[str]:
    """List the sample photos, which are at /samples/NAME; none if they are not installed."""
    return sorted(path.name for path in SAMPLES.glob("*.[jw]*"))


@router.get("/docs")
def documentation() -> HTMLResponse:
    """Return the documentation; its addresses are relative, so that they work below any path."""
    return _response(*_documentation())


@cache
def _page() -> tuple[str, str]:
    """Read the page and make its policy."""
    html = (FOLDER / "index.html").read_text()
    return html, page_policy(html, images="'self' blob:", files="'self'")


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
