"""A reverse proxy for tests, which serves the API below a path prefix."""

from collections.abc import Mapping

import httpx2
from aiohttp import web

from tests.worker.fetching.site import Site

_OWN = ("connection", "content-length", "transfer-encoding", "content-encoding", "date")


class ReverseProxy(Site):
    """Serves `target` below `prefix`, which it removes unless told not to, with `headers` added."""

    def __init__(
        self, target: str, prefix: str, headers: Mapping[str, str], removes: bool = True
    ) -> None:
        super().__init__()
        self._target = target
        self._prefix = prefix
        self._headers = headers
        self._removes = removes

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not f"{request.raw_path}/".startswith(f"{self._prefix}/"):
            return web.Response(status=404)
        path = request.raw_path.removeprefix(self._prefix if self._removes else "")
        if not path.startswith("/"):  # as Traefik does
            path = f"/{path}"
        sent = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
            answer = await client.request(
                request.method,
                f"{self._target}{path}",
                headers={**sent, **self._headers},
                content=await request.read(),
            )
        kept = {name: value for name, value in answer.headers.items() if name not in _OWN}
        return web.Response(status=answer.status_code, headers=kept, body=answer.content)
