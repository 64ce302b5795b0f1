"""Chunks that wait for hanging hosts do not stop other jobs in a real worker process."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
from aiohttp import web

from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Site

# No download ends by itself within this test.
ENV = {
    **STACK_ENV,
    "PIQUEUE_THREADS": "1",
    "PIQUEUE_CHUNK_ITEMS": "4",
    "PIQUEUE_FETCH_TIMEOUT_S": "600",
    "PIQUEUE_CHUNK_DEADLINE_S": "3600",
}


def test_jobs_continue_while_chunks_of_another_job_wait_for_a_hanging_host(tmp_path: Path) -> None:
    picture, released = jpeg(1), asyncio.Event()

    async def hang(_request: web.BaseRequest) -> web.StreamResponse:
        await released.wait()
        return web.Response(body=picture)

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=picture)

    paths = [f"/{index}.jpg" for index in range(40)]
    with (
        Site(dict.fromkeys(paths, hang)) as hanging,
        Site(dict.fromkeys(paths, answer)) as site,
        Stack(tmp_path, env=ENV) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):

        def submit(host: Site) -> dict[str, Any]:
            body = {"urls": [host.url(path) for path in paths], "priority": "bulk"}
            job: dict[str, Any] = client.post("/jobs", json=body).json()
            return job

        stuck = submit(hanging)
        assert wait_done(client, submit(site))["counts"]["succeeded"] == len(paths)
        stuck = client.get(stuck["links"]["self"]).json()
        assert stuck["counts"]["running"] > 0
        assert stuck["counts"]["succeeded"] + stuck["counts"]["failed"] == 0
        hanging.call(released.set)
        assert wait_done(client, stuck)["counts"]["succeeded"] == len(paths)
