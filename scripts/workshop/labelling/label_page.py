"""Serves the labelling page, to a browser on this machine only."""

import secrets
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from api.foreign_requests import foreign_reason
from api.middleware.security_headers import POLICY, SecurityHeaders, page_policy
from api.routes.page import FOLDER as WEB_PAGE_FOLDER
from model.images.result import ImageRejected
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.labelling.session import Answered, LabelSession
from scripts.workshop.labelling.teaching import Teaching
from scripts.workshop.preview import jpeg_preview

FOLDER = Path(__file__).with_name("static")
HOST = "127.0.0.1"
_LONGEST_SIDE = 1600


class PictureOut(BaseModel):
    """A picture on the page: `labels` is null until they are confirmed.

    `skipped` says that it is left out. `scores` are those of a model for the table's labels;
    `suggested` are its predicted labels, or those that the table guesses.
    """

    name: str
    labels: list[str] | None
    skipped: bool
    scores: dict[str, float] | None
    suggested: list[str] | None


class StateOut(BaseModel):
    """The state that the page starts with; it loads it again when `revision` changes.

    `conflicts` says which answers are not in the table, and why. `job` is the job from which a
    model can be taught.
    """

    table: str
    job: str | None
    labels: list[str]
    pictures: list[PictureOut]
    can_undo: bool
    revision: int
    conflicts: list[str]


class ShownIn(BaseModel):
    """The answer that the page shows for a picture, in the form of `PictureOut`."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str] | None
    skipped: bool


class AnswerIn(BaseModel):
    """The labels of a picture, possibly none, or null to leave it out.

    If the picture has another answer than `shown` by now, that one is kept.
    """

    model_config = ConfigDict(extra="forbid")

    labels: list[str] | None
    shown: ShownIn


class TeachIn(BaseModel):
    """The name of the model to teach."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)


class TaughtOut(BaseModel):
    """What `piqueue teach` prints."""

    text: str


class ChangeOut(BaseModel):
    """The change by an answer or an undo."""

    index: int
    picture: PictureOut
    can_undo: bool
    revision: int
    conflicts: list[str]


def create_app(
    session: LabelSession, token: str, finish: Callable[[], None], teaching: Teaching | None
) -> FastAPI:
    """Build the application, which serves everything below `/token/` on a loopback port.

    Any page in the browser can send requests to this port. A request without the token, or that
    another site's page may have sent, gets 403.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    router = APIRouter(prefix=f"/{token}")
    html = (FOLDER / "label.html").read_text(encoding="utf-8")
    policy = page_policy(html, images="'self'", files="'self'")

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        given = request.url.path.split("/")[1]
        known = secrets.compare_digest(given.encode(), token.encode())
        if not known or foreign_reason(request.method, request.headers, ()) is not None:
            return PlainTextResponse("open the address that the command printed", 403)
        return await call_next(request)

    app.add_middleware(SecurityHeaders)

    @router.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers={POLICY: policy})

    @router.get("/state")
    def state() -> StateOut:
        return StateOut(
            table=str(session.table.path),
            job=teaching and teaching.job,
            labels=list(session.table.labels),
            pictures=[_picture_out(session, index) for index in range(len(session.pictures))],
            can_undo=session.can_undo,
            revision=session.revision,
            conflicts=session.conflicts,
        )

    @router.get("/pictures/{index}")
    def picture(index: int) -> Response:
        try:
            path = session.pictures[_existing(session, index)].path
            payload = jpeg_preview(path.read_bytes(), _LONGEST_SIDE)
        except (OSError, ImageRejected) as error:
            raise HTTPException(422, f"cannot be displayed ({error}): leave it out") from None
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(payload, media_type="image/jpeg", headers=headers)

    @router.post("/pictures/{index}")
    def answer(index: int, given: AnswerIn) -> ChangeOut:
        _existing(session, index)
        if unknown := set(given.labels or ()) - set(session.table.labels):
            raise HTTPException(
                422, f"not labels of this table: {', '.join(sorted(unknown))}: reload the page"
            )
        seen = None if given.shown.labels is None else frozenset(given.shown.labels)
        session.answer(index, given.labels, Answered(seen, given.shown.skipped))
        return _change(session, index)

    @router.post("/undo")
    def undo() -> ChangeOut:
        index = session.undo()
        if index is None:
            raise HTTPException(409, "there is no answer to undo: answer first")
        return _change(session, index)

    @router.post("/teach")
    def teach(given: TeachIn) -> TaughtOut:
        if teaching is None:
            raise HTTPException(409, "no job keeps features of these pictures: give it with --from")
        try:
            return TaughtOut(text=teaching.teach(given.name, session.table.path))
        except CommandFailed as error:
            raise HTTPException(422, str(error)) from None

    @router.post("/finish", status_code=204)
    def finished() -> None:
        finish()

    @app.exception_handler(CommandFailed)
    def refused(_request: Request, error: CommandFailed) -> JSONResponse:
        return JSONResponse({"detail": f"the answer is not saved: {error}"}, 409)

    app.include_router(router)
    app.mount(f"/{token}/static", StaticFiles(directory=FOLDER))
    # Colours, icon and module that the label page shares with the web page.
    app.mount(f"/{token}/page", StaticFiles(directory=WEB_PAGE_FOLDER))
    return app


def serve(session: LabelSession, *, browser: bool, teaching: Teaching | None = None) -> None:
    """Print and open the page's address, and serve until the page finishes, or Ctrl-C."""
    token = secrets.token_urlsafe(16)
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]

        def finish() -> None:
            server.should_exit = True

        app = create_app(session, token, finish, teaching)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        url = f"http://{HOST}:{port}/{token}/"
        print(f"labelling page: {url}\nCtrl-C stops it; every answer is saved at once.", flush=True)
        if browser:  # in a thread, as some browsers run in the terminal and do not return
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.run(sockets=[listening])


def _existing(session: LabelSession, index: int) -> int:
    if not 0 <= index < len(session.pictures):
        raise HTTPException(404, "there is no such picture: reload the page")
    return index


def _change(session: LabelSession, index: int) -> ChangeOut:
    picture = _picture_out(session, index)
    return ChangeOut(
        index=index,
        picture=picture,
        can_undo=session.can_undo,
        revision=session.revision,
        conflicts=session.conflicts,
    )


def _picture_out(session: LabelSession, index: int) -> PictureOut:
    picture, answered = session.pictures[index], session.answered(index)
    scores = picture.prediction.scores if picture.prediction else None
    known, suggested = session.table.labels, session.suggestion(index)
    return PictureOut(
        name=picture.name,
        labels=None if answered.labels is None else sorted(answered.labels),
        skipped=answered.is_left_out,
        scores=scores and {label: scores[label] for label in known if label in scores},
        suggested=None if suggested is None else [label for label in known if label in suggested],
    )
