"""How long the uploads of a draft live, when its submission is refused or comes in between."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from api.main import create_app
from api.services import Services
from tests.pictures import jpeg
from worker.jobs.errors import LedgerUnavailable
from worker.jobs.settings import load_settings

EXPIRY = "piqueue:object-expiry"
HOUR_S = 3600


def run(
    steps: Callable[[httpx2.AsyncClient, Services], Awaitable[None]],
    redis_url: str,
    **settings: Any,
) -> None:
    """Run steps against an API in this process."""
    app = create_app(load_settings(redis_url=redis_url, draft_ttl_s=HOUR_S, **settings))
    transport = httpx2.ASGITransport(app)

    async def body() -> None:
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await steps(client, app.state.services)

    asyncio.run(asyncio.wait_for(body(), 30))


async def draft_with_a_file(client: httpx2.AsyncClient, **options: object) -> str:
    draft = (await client.post("/jobs", json={"draft": True, **options})).json()
    await add_file(client, draft["id"], "a.jpg")
    return str(draft["id"])


async def add_file(client: httpx2.AsyncClient, draft_id: str, name: str) -> httpx2.Response:
    files = [("files", (name, jpeg(1)))]
    return await client.post(f"/jobs/{draft_id}/items", files=files)


def test_a_draft_that_is_refused_keeps_its_uploads(
    tmp_path: Path, redis_client: Redis, redis_url: str
) -> None:
    def left_s(draft_id: str) -> float:
        seconds, _ = redis_client.time()
        return (redis_client.zscore(EXPIRY, draft_id) or 0) / 1000 - seconds

    async def steps(client: httpx2.AsyncClient, _: Services) -> None:
        draft_id = await draft_with_a_file(client, expires_in_s=60)
        other = (await client.post("/jobs", json={"urls": ["http://127.0.0.1:9/"]})).json()
        refused = await client.post(f"/jobs/{draft_id}/submit")
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert left_s(draft_id) > HOUR_S / 2
        await client.delete(f"/jobs/{other['id']}")
        assert (await client.post(f"/jobs/{draft_id}/submit")).status_code == 202
        assert 0 < left_s(draft_id) <= 61

    run(steps, redis_url, storage_url=str(tmp_path), max_backlog_items=1)


@pytest.mark.parametrize("storage", ["redis", "folder"])
def test_a_file_that_comes_too_late_for_a_draft_changes_no_expiry(
    storage: str,
    tmp_path: Path,
    redis_client: Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def steps(client: httpx2.AsyncClient, services: Services) -> None:
        draft_id = await draft_with_a_file(client, expires_in_s=10 * HOUR_S)
        loop, put = asyncio.get_running_loop(), services.blobs.put

        def submit_first(*args: Any) -> None:
            submitting = client.post(f"/jobs/{draft_id}/submit")
            asyncio.run_coroutine_threadsafe(submitting, loop).result().raise_for_status()
            put(*args)

        monkeypatch.setattr(services.blobs, "put", submit_first)
        late = await add_file(client, draft_id, "b.jpg")
        assert (late.status_code, late.json()["code"]) == (409, "job_not_draft")
        if storage == "redis":
            assert redis_client.ttl(f"piqueue:{{{draft_id}}}:blobs") == -1
        else:
            seconds, _ = redis_client.time()
            assert (redis_client.zscore(EXPIRY, draft_id) or 0) / 1000 - seconds > 9 * HOUR_S

    run(steps, redis_url, storage_url="redis" if storage == "redis" else str(tmp_path))


def test_a_draft_is_accepted_if_redis_goes_away_just_after(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def steps(client: httpx2.AsyncClient, services: Services) -> None:
        keep = services.blobs.keep

        def keep_once(*args: Any) -> None:
            calls.append(args)
            if len(calls) > 1:
                raise LedgerUnavailable("Redis does not answer")
            keep(*args)

        monkeypatch.setattr(services.blobs, "keep", keep_once)
        draft_id = await draft_with_a_file(client)
        assert (await client.post(f"/jobs/{draft_id}/submit")).status_code == 202

    run(steps, redis_url, storage_url=str(tmp_path))
    assert len(calls) == 2
