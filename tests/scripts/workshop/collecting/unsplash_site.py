"""A fake of the Unsplash API: searches by page, hourly limits, download reports."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.worker.fetching.site import Site

KEY = "the-access-key"


@dataclass(frozen=True)
class Shot:
    """A photo of the fake: its id, its bytes, and its description and tags."""

    id: str
    payload: bytes = b""
    description: str | None = None
    tags: tuple[str, ...] = ()


class UnsplashSite(Site):
    """Answers searches from `found`; `remaining` of 50 requests are allowed, None for no limit.

    `answers` are the answers to the next requests, in order; `reported` are the ids of photos
    whose download was reported; `searched` is the query and page of each search; `refused_count`
    counts the requests beyond the limit.
    """

    def __init__(self, found: Mapping[str, Sequence[Shot]]) -> None:
        super().__init__()
        self.found = dict(found)
        self.remaining: int | None = None
        self.answers: list[web.Response] = []
        self.reported: list[str] = []
        self.searched: list[tuple[str, int]] = []
        self.refused_count = 0

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if photo := re.fullmatch(r"/images/([\w-]+)", request.path):
            shots = {shot.id: shot for shots in self.found.values() for shot in shots}
            payload = shots[photo[1]].payload
            return web.Response(body=payload) if payload else web.Response(status=404)
        if request.headers.get("Authorization") != f"Client-ID {KEY}":
            errors = ["OAuth error: The access token is invalid"]
            return web.json_response({"errors": errors}, status=401)
        if self.answers:
            return self.answers.pop(0)
        if self.remaining == 0:
            self.refused_count += 1
            return self._counted(web.Response(status=403, text="Rate Limit Exceeded"))
        if self.remaining is not None:
            self.remaining -= 1
        if report := re.fullmatch(r"/photos/([\w-]+)/download", request.path):
            self.reported.append(report[1])
            return self._counted(web.json_response({"url": self.url(f"/images/{report[1]}")}))
        assert request.path == "/search/photos"
        return self._counted(web.json_response(self._search(request.query)))

    def _counted(self, response: web.Response) -> web.Response:
        if self.remaining is not None:
            response.headers["X-Ratelimit-Limit"] = "50"
            response.headers["X-Ratelimit-Remaining"] = str(self.remaining)
        return response

    def _search(self, query: Mapping[str, str]) -> dict[str, Any]:
        page, per_page = int(query["page"]), int(query["per_page"])
        assert 1 <= per_page <= 30
        self.searched.append((query["query"], page))
        shots = self.found.get(query["query"], ())
        shown = shots[(page - 1) * per_page : page * per_page]
        return {
            "total": len(shots),
            "total_pages": -(-len(shots) // per_page),
            "results": [self._photo(shot) for shot in shown],
        }

    def _photo(self, shot: Shot) -> dict[str, Any]:
        image = self.url(f"/images/{shot.id}")
        return {
            "id": shot.id,
            "description": shot.description,
            "alt_description": f"a photo called {shot.id}",
            "urls": {"raw": image, "full": image, "regular": image, "small": f"{image}?w=400"},
            "links": {
                "html": f"https://unsplash.com/photos/{shot.id}",
                "download_location": self.url(f"/photos/{shot.id}/download?ixid=abc"),
            },
            "user": {
                "name": f"\ufeff＝=Ann, who took {shot.id}",
                "links": {"html": "https://unsplash.com/@ann"},
            },
            "tags": [{"type": "search", "title": tag} for tag in shot.tags],
        }
