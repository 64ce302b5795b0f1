"""The labelling page: served to a browser on this machine, and to nobody else."""

import io
import secrets
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict

from api.routes.page import policy_of
from model.images.decode import decode
from model.images.result import ImageRejected
from scripts.workshop.labelling.session import Labelling

PATH = Path(__file__).with_name("label.html")
HOST = "127.0.0.1"
_LONGEST_SIDE = 1600
_JPEG_QUALITY = 88
_PROBE_SIZE = (32, 32)


class PictureOut(BaseModel):
    """A picture as the page shows it: `labels` is null until it has an answer.

    `scores` are what a model says of the table's labels, `suggested` those it would give, or the
    table's own guess.
    """

    name: str
    labels: list[str] | None
    skipped: bool
    scores: dict[str, float] | None
    suggested: list[str] | None


class StateOut(BaseModel):
    """All that the page begins with."""

    table: str
    labels: list[str]
    pictures: list[PictureOut]
    can_undo: bool


class AnswerIn(BaseModel):
    """What a person says of a picture: its labels, be it none of them, or null to leave it out."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str] | None


class ChangeOut(BaseModel):
    """What an answer, or taking one back, changed."""

    index: int
    picture: PictureOut
    can_undo: bool


def create_app(labelling: Labelling, token: str, port: int, finish: Callable[[], None]) -> FastAPI:
    """Build the application: all it serves is below `/token/`, on the loopback port given.

    Any page in the browser can send requests to this port: one that does not know the token, or
    reached us by a name of its own for 127.0.0.1, is refused.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    router = APIRouter(prefix=f"/{token}")
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}
    html = PATH.read_text(encoding="utf-8")
    policy = policy_of(html, images="'self' data:")

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        given = request.url.path.split("/")[1]
        known = secrets.compare_digest(given.encode(), token.encode())
        if not known or request.headers.get("host") not in hosts:
            return PlainTextResponse("open the address that piqueue printed", 403)
        response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response

    @router.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @router.get("/state")
    def state() -> StateOut:
        return StateOut(
            table=str(labelling.table.path),
            labels=list(labelling.table.labels),
            pictures=[_shown(labelling, index) for index in range(len(labelling.pictures))],
            can_undo=labelling.can_undo,
        )

    @router.get("/pictures/{index}")
    def picture(index: int) -> Response:
        try:
            payload = for_browser(labelling.pictures[_checked(labelling, index)].path.read_bytes())
        except (OSError, ImageRejected) as error:
            raise HTTPException(422, f"cannot be shown: {error}") from None
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(payload, media_type="image/jpeg", headers=headers)

    @router.post("/pictures/{index}")
    def answer(index: int, given: AnswerIn) -> ChangeOut:
        _checked(labelling, index)
        if unknown := set(given.labels or ()) - set(labelling.table.labels):
            raise HTTPException(422, f"no labels of this table: {', '.join(sorted(unknown))}")
        labelling.answer(index, given.labels)
        return _change(labelling, index)

    @router.post("/undo")
    def undo() -> ChangeOut:
        index = labelling.undo()
        if index is None:
            raise HTTPException(409, "there is nothing to take back")
        return _change(labelling, index)

    @router.post("/finish", status_code=204)
    def finished() -> None:
        finish()

    @app.exception_handler(OSError)
    def not_saved(_request: Request, error: OSError) -> JSONResponse:
        return JSONResponse({"detail": f"the table cannot be written: {error}"}, 507)

    app.include_router(router)
    return app


def serve(labelling: Labelling, *, browser: bool) -> None:
    """Print the page's address, open it, and serve until it says that all is done, or Ctrl-C."""
    token = secrets.token_urlsafe(16)
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]

        def finish() -> None:
            server.should_exit = True

        app = create_app(labelling, token, port, finish)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        url = f"http://{HOST}:{port}/{token}/"
        print(f"label here: {url}\nCtrl-C ends it; every answer is saved at once.", flush=True)
        if browser:  # in a thread, for some browsers take the terminal and do not return
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.run(sockets=[listening])


def for_browser(payload: bytes) -> bytes:
    """A picture of any format as a JPEG, upright, of at most 1600 pixels a side.

    Raises:
        ImageRejected: it is no picture, or one that a model could not be given either.
    """
    probe = decode(payload, _PROBE_SIZE)
    scale = min(1, _LONGEST_SIDE / max(probe.width, probe.height))
    size = max(1, round(probe.height * scale)), max(1, round(probe.width * scale))
    target = io.BytesIO()
    Image.fromarray(decode(payload, size).pixels).save(target, "JPEG", quality=_JPEG_QUALITY)
    return target.getvalue()


def _checked(labelling: Labelling, index: int) -> int:
    if not 0 <= index < len(labelling.pictures):
        raise HTTPException(404, "there is no such picture")
    return index


def _change(labelling: Labelling, index: int) -> ChangeOut:
    picture = _shown(labelling, index)
    return ChangeOut(index=index, picture=picture, can_undo=labelling.can_undo)


def _shown(labelling: Labelling, index: int) -> PictureOut:
    picture, labels = labelling.pictures[index], labelling.labels(index)
    opinion, known = picture.opinion, labelling.table.labels
    suggested = labelling.suggestion(index)
    return PictureOut(
        name=picture.name,
        labels=None if labels is None else sorted(labels),
        skipped=labelling.is_skipped(index),
        scores=opinion and {one: opinion.scores[one] for one in known if one in opinion.scores},
        suggested=None if suggested is None else [one for one in known if one in suggested],
    )
