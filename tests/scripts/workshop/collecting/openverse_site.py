"""A fake of the Openverse API: searches by page and licence, limits, and the pictures."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from tests.scripts.workshop.collecting.unsplash_site import Shot
from tests.worker.fetching.site import Site


class OpenverseSite(Site):
    """Answers searches from `found`, whose shots have the licences `licenses`, by default `by`.

    `answers` are the answers to the next searches, in order; `searched` is the query and page of
    each search.
    """

    def __init__(
        self, found: Mapping[str, Sequence[Shot]], licenses: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.found = dict(found)
        self.licenses = licenses or {}
        self.answers: list[web.Response] = []
        self.searched: list[tuple[str, int]] = []

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if photo := re.fullmatch(r"/images/([\w-]+)", request.path):
            shots = {shot.id: shot for shots in self.found.values() for shot in shots}
            return web.Response(body=shots[photo[1]].payload)
        if self.answers:
            return self.answers.pop(0)
        assert request.path == "/images/"
        query = request.query
        page, page_size = int(query["page"]), int(query["page_size"])
        if page_size > 20:
            return web.json_response({"detail": "page_size must be at most 20"}, status=401)
        self.searched.append((query["q"], page))
        allowed = query["license"].split(",")
        hits = [one for one in self.found.get(query["q"], ()) if self._license(one) in allowed]
        shown = hits[(page - 1) * page_size : page * page_size]
        body = {
            "result_count": len(hits),
            "page_count": -(-len(hits) // page_size),
            "page_size": page_size,
            "page": page,
            "results": [self._picture(shot) for shot in shown],
        }
        return web.json_response(body)

    def _license(self, shot: Shot) -> str:
        return self.licenses.get(shot.id, "by")

    def _picture(self, shot: Shot) -> dict[str, Any]:
        kind = self._license(shot)
        return {
            "id": shot.id,
            "title": f"A photo called {shot.id}",
            "url": self.url(f"/images/{shot.id}"),
            "foreign_landing_url": f"https://www.flickr.com/photos/ann/{shot.id}",
            "creator": f"=Ann, who took {shot.id}" if kind != "pdm" else None,
            "creator_url": "https://www.flickr.com/photos/ann",
            "license": kind,
            "license_version": "2.0",
            "license_url": f"https://creativecommons.org/licenses/{kind}/2.0/",
            "filetype": "png" if shot.id.startswith("drawn") else None,
            "tags": [{"name": tag, "accuracy": None} for tag in shot.tags],
            "mature": False,
        }
