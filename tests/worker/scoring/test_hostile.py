"""Hostile pictures in a real worker process: each gets a code, and memory stays limited."""

from pathlib import Path

import httpx2
from aiohttp import web
from PIL import Image

from scripts.local.stack import Stack
from tests import hostile
from tests.api.polling import all_results, wait_done
from tests.conftest import STACK_ENV
from tests.model.images.peak import SANDBOX_BYTES, observed
from tests.pictures import jpeg
from tests.worker.fetching.site import Answer, Site
from worker.scoring.runtime import FETCH_AHEAD

DECODE_BYTES = 200_000_000
FETCH_BYTES = 20_000_000
THREADS = 4
# The further memory of a worker by SECURITY.md: its model, libraries and threads.
REST_BYTES = 250_000_000


def serving(payload: bytes) -> Answer:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        # The content type and the name are ignored.
        return web.Response(body=payload, content_type="text/html")

    return answer


def test_hostile_pictures_get_a_code_others_are_scored_and_memory_is_limited(
    tmp_path: Path,
) -> None:
    bad = {name: (codes, make()) for name, (codes, make) in hostile.REJECTED.items()}
    odd = {name: make() for name, make in hostile.SCORED.items()}
    costly = hostile.encode(Image.new("RGB", (3600, 3000)), "WEBP", lossless=True, method=0)
    good = jpeg(7)
    payloads = [
        *(payload for _, payload in bad.values()),
        *odd.values(),
        *hostile.mutants(seed=9, count=60),
        *[costly] * 8,
    ]
    env = {
        **STACK_ENV,
        "PIQUEUE_MAX_ITEM_BYTES": "5000000",
        "PIQUEUE_MAX_PIXELS": "50000000",
        "PIQUEUE_DECODE_MEMORY_BYTES": str(DECODE_BYTES),
        "PIQUEUE_FETCH_BUDGET_BYTES": str(FETCH_BYTES),
        "PIQUEUE_FETCH_TIMEOUT_S": "60",
        "PIQUEUE_THREADS": str(THREADS),
    }
    paths = {f"/{index}.jpg": serving(payload) for index, payload in enumerate(payloads)}
    with (
        Site({**paths, "/good": serving(good)}) as site,
        Stack(tmp_path, env=env) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        worker = stack.workers[0]
        # Each is followed by a good picture.
        urls = [url for path in paths for url in (site.url(path), site.url("/good"))]
        with observed(worker) as peak:
            job = client.post("/jobs", json={"urls": urls}).json()
            wait_done(client, job, deadline_s=200)
        results = all_results(client, job)
        assert stack.workers == [worker], "the worker ended"

    assert [result["index"] for result in results] == list(range(2 * len(payloads)))
    neighbours = [result["scores"] for result in results[1::2]]
    assert all(scores == neighbours[0] for scores in neighbours)
    assert neighbours[0] is not None
    ends = results[::2]
    for result, (name, (codes, _)) in zip(ends, bad.items(), strict=False):
        assert result["error"], name
        assert result["error"]["code"] in codes, name
    for result, name in zip(ends[len(bad) :], odd, strict=False):
        assert result["scores"], (name, result["error"])
    assert all(result["scores"] for result in ends[-8:])
    allowed = {
        "not_an_image",
        "unsupported_format",
        "too_many_pixels",
        "truncated",
        "decode_failed",
    }
    assert {result["error"]["code"] for result in ends if result["error"]} <= allowed
    # A chunk that is fetched ahead is decoded too.
    rest = REST_BYTES + (THREADS + FETCH_AHEAD) * SANDBOX_BYTES
    assert peak.total_bytes < rest + DECODE_BYTES + FETCH_BYTES
