"""What API keys allow, who is logged, and how wrong keys are answered; on a real Redis."""

import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx2
import pytest
import structlog
from fastapi.testclient import TestClient
from redis import Redis
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from api.main import create_app
from api.wrong_keys import MOST_IN_WINDOW
from scripts.local.embedded_redis import EmbeddedRedis
from tests.scripts.processes import eventually
from worker.jobs.ledger.api_keys import KeyStore, Scope
from worker.jobs.settings import load_settings

# The routes that anyone may read.
OPEN = {"/healthz", "/readyz", "/models"}
JOB = {"urls": ["http://127.0.0.1:9/"]}

T = TypeVar("T")


def with_api(
    redis_url: str,
    use: Callable[[httpx2.AsyncClient], Awaitable[T]],
    address: str = "192.0.2.1",
) -> T:
    """Give what `use` returns for a client at `address` of an API in this process."""
    app = create_app(load_settings(redis_url=redis_url))

    async def run() -> T:
        transport = httpx2.ASGITransport(app, client=(address, 1234))
        base_url = "http://localhost"
        async with httpx2.AsyncClient(transport=transport, base_url=base_url) as client:
            return await use(client)

    return asyncio.run(run())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("scope", "refused"),
    [
        (Scope.READ, {"submit", "cancel", "delete", "secret", "metrics"}),
        (Scope.SUBMIT, {"metrics"}),
        (Scope.METRICS, {"submit", "cancel", "delete", "secret", "read", "list", "limits"}),
        (Scope.OPERATE, set()),
    ],
)
def test_a_key_allows_what_its_scope_names(
    redis_client: Redis, redis_url: str, scope: Scope, refused: set[str]
) -> None:
    keys = KeyStore(redis_client)
    key = keys.add("tried", scopes=[scope])

    async def statuses(client: httpx2.AsyncClient) -> dict[str, httpx2.Response]:
        requests = {
            "submit": ("POST", "/jobs", JOB),
            "read": ("GET", "/jobs/job_x", None),
            "list": ("GET", "/jobs", None),
            "cancel": ("POST", "/jobs/job_x/cancel", None),
            "delete": ("DELETE", "/jobs/job_x", None),
            "limits": ("GET", "/limits", None),
            "secret": ("GET", "/webhooks/secret", None),
            "metrics": ("GET", "/metrics", None),
        }
        return {
            name: await client.request(method, path, json=body, headers=bearer(key))
            for name, (method, path, body) in requests.items()
        }

    answers = with_api(redis_url, statuses)
    assert {name for name, answer in answers.items() if answer.status_code == 403} == refused
    assert {answer.status_code for answer in answers.values()} <= {200, 202, 403, 404}
    for name in refused:
        problem = answers[name].json()
        needed = {"metrics": "metrics", "read": "read", "list": "read", "limits": "read"}
        assert problem["code"] == "scope_missing"
        assert problem["detail"] == (
            f"this API key has the scope {scope}, and this request needs "
            f"{needed.get(name, 'submit')}: use a key that was made with "
            f"`piqueue keys add NAME --scope {needed.get(name, 'submit')}`"
        )


def test_every_route_but_the_open_ones_needs_a_key_with_a_scope(
    redis_client: Redis, redis_url: str
) -> None:
    key = KeyStore(redis_client).add("scraper", scopes=[Scope.METRICS])

    async def ask_all(client: httpx2.AsyncClient) -> dict[tuple[str, str], tuple[int, int]]:
        paths = (await client.get("/openapi.json")).json()["paths"]
        found = {}
        for path, methods in paths.items():
            target = re.sub(r"\{\w+\}", "x", path)
            for method in methods:
                without = await client.request(method, target)
                scraper = await client.request(method, target, headers=bearer(key))
                found[method, path] = without.status_code, scraper.status_code
        return found

    found = with_api(redis_url, ask_all)
    assert len(found) > 15
    assert {path for (_, path), statuses in found.items() if statuses != (401, 403)} == OPEN


def test_a_job_of_another_key_is_not_found_but_for_operators(
    redis_client: Redis, redis_url: str
) -> None:
    keys = KeyStore(redis_client)
    owner, other = keys.add("owner"), keys.add("other")
    operator = keys.add("operator", scopes=[Scope.OPERATE])

    async def ask(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        job = (await client.post("/jobs", json=JOB, headers=bearer(owner))).json()
        path = f"/jobs/{job['id']}"
        read = [await client.get(path, headers=bearer(key)) for key in (owner, other, operator)]
        return [*read, await client.delete(path, headers=bearer(operator))]

    mine, foreign, operated, deleted = with_api(redis_url, ask)
    assert [mine.status_code, operated.status_code, deleted.status_code] == [200, 200, 204]
    assert (foreign.status_code, foreign.json()["code"]) == (404, "job_not_found")
    assert "or it belongs to another key" in foreign.json()["detail"]


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(
    redis_client: Redis, redis_url: str
) -> None:
    right = KeyStore(redis_client).add("alice")

    async def ask(client: httpx2.AsyncClient) -> tuple[list[int], httpx2.Response, list[int]]:
        wrong = [
            (await client.get("/jobs", headers=bearer(f"pq_{at}"))).status_code
            for at in range(MOST_IN_WINDOW)
        ]
        slowed = await client.get("/jobs", headers=bearer("pq_wrong"))
        others = [
            (await client.get("/jobs", headers=headers)).status_code
            for headers in (bearer(right), {}, bearer("pq_wrong"))
        ]
        return wrong, slowed, others

    wrong, slowed, others = with_api(redis_url, ask)
    assert wrong == [401] * MOST_IN_WINDOW
    assert (slowed.status_code, slowed.json()["code"]) == (429, "wrong_keys_sent")
    assert "came from 192.0.2.1: try again in" in slowed.json()["detail"]
    assert 0 < int(slowed.headers["Retry-After"]) <= 60
    assert others == [200, 401, 429]


def test_the_name_of_a_key_is_logged_with_its_requests(
    redis_client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = KeyStore(redis_client).add("Alice B.")

    async def ask(client: httpx2.AsyncClient) -> None:
        await client.post("/jobs", json=JOB, headers=bearer(key))
        await client.get("/jobs", headers=bearer("pq_wrong"))
        await client.get("/healthz")

    structlog.reset_defaults()
    with capture_logs([merge_contextvars]) as logs:
        with_api(redis_url, ask)
    assert [(line["event"], line.get("key_name")) for line in logs] == [
        ("job_submitted", "Alice B."),
        ("request", "Alice B."),
        ("request", None),
    ]
    assert key not in str(logs)


def test_the_last_use_is_recorded_and_no_request_waits_for_it(
    redis_client: Redis, redis_url: str
) -> None:
    keys = KeyStore(redis_client)
    key = keys.add("alice")
    started_ms = time.time() * 1000 - 1

    async def ask(client: httpx2.AsyncClient) -> float:
        await client.get("/jobs")  # connects
        redis_client.client_pause(3000, all=False)
        began = time.monotonic()
        assert (await client.get("/jobs", headers=bearer(key))).status_code == 200
        return time.monotonic() - began

    assert with_api(redis_url, ask) < 1.5
    assert eventually(lambda: (keys.all()[0].used_ms or 0) >= started_ms)


def test_an_api_knows_of_keys_before_its_first_request(redis_client: Redis, redis_url: str) -> None:
    KeyStore(redis_client).add("alice")
    app = create_app(load_settings(redis_url=redis_url))
    with TestClient(app, base_url="http://localhost") as client:
        keys = app.state.services.keys
        assert eventually(lambda: keys._ledger_id is not None)
        redis_client.flushdb()
        assert client.get("/jobs").json()["code"] == "ledger_replaced"


def test_nobody_is_let_in_by_an_empty_redis_that_replaced_one_with_keys(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    with redis:
        with Redis.from_url(redis.url) as client:
            key = KeyStore(client).add("alice")

        def replace() -> None:
            redis.process.stop(grace_s=10)
            for name in ("appendonlydir", "dump.rdb"):
                data = tmp_path / name
                if data.is_dir():
                    shutil.rmtree(data)
                else:
                    data.unlink(missing_ok=True)
            redis.process.start()

        async def ask(api: httpx2.AsyncClient) -> list[httpx2.Response]:
            assert (await api.get("/jobs", headers=bearer(key))).status_code == 200
            replace()
            refused = [
                await api.request(method, path, headers=headers)
                for method, path in (("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/metrics"))
                for headers in ({}, bearer(key))
            ]
            return [*refused, await api.get("/readyz"), await api.get("/healthz")]

        *refused, alive = with_api(redis.url, ask, "127.0.0.1")
        assert {(each.status_code, each.json()["code"]) for each in refused} == {
            (503, "ledger_replaced")
        }
        assert "it was emptied, or another one took its place" in refused[-1].json()["detail"]
        assert alive.status_code == 200

        async def start_anew(api: httpx2.AsyncClient) -> int:
            return (await api.get("/jobs")).status_code

        assert with_api(redis.url, start_anew) == 200
