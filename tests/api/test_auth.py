"""What API keys allow, who is logged, and how wrong keys are answered; on a real Redis."""

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import structlog
from fastapi.routing import iter_route_contexts
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

# The scope that each route needs; None if everyone may read it. A new route needs a row.
ROUTES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/"): None,
    ("GET", "/docs"): None,
    ("GET", "/docs/files"): None,
    ("GET", "/static"): None,
    ("GET", "/samples"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/models"): None,
    ("GET", "/models/{reference}"): Scope.READ,
    ("GET", "/metrics"): Scope.METRICS,
    ("GET", "/limits"): Scope.READ,
    ("POST", "/scorefile/"): Scope.SUBMIT,
    ("GET", "/webhooks/secret"): Scope.SUBMIT,
    ("POST", "/webhooks/secret/rotate"): Scope.SUBMIT,
    ("GET", "/jobs"): Scope.READ,
    ("POST", "/jobs"): Scope.SUBMIT,
    ("GET", "/jobs/{job_id}"): Scope.READ,
    ("DELETE", "/jobs/{job_id}"): Scope.SUBMIT,
    ("POST", "/jobs/{job_id}/cancel"): Scope.SUBMIT,
    ("GET", "/jobs/{job_id}/events"): Scope.READ,
    ("GET", "/jobs/{job_id}/histogram"): Scope.READ,
    ("GET", "/jobs/{job_id}/items"): Scope.READ,
    ("POST", "/jobs/{job_id}/items"): Scope.SUBMIT,
    ("GET", "/jobs/{job_id}/items/{index}/thumbnail"): Scope.READ,
    ("GET", "/jobs/{job_id}/report"): Scope.READ,
    ("GET", "/jobs/{job_id}/results"): Scope.READ,
    ("GET", "/jobs/{job_id}/results/parts"): Scope.READ,
    ("POST", "/jobs/{job_id}/rescore"): Scope.SUBMIT,
    ("POST", "/jobs/{job_id}/retry"): Scope.SUBMIT,
    ("POST", "/jobs/{job_id}/submit"): Scope.SUBMIT,
    ("GET", "/jobs/{job_id}/similar"): Scope.READ,
    ("GET", "/jobs/{job_id}/duplicates"): Scope.READ,
    ("GET", "/jobs/{job_id}/webhook"): Scope.READ,
    ("POST", "/jobs/{job_id}/webhook/replay"): Scope.SUBMIT,
}
ALLOWED = {
    Scope.READ: {Scope.READ},
    Scope.SUBMIT: {Scope.READ, Scope.SUBMIT},
    Scope.METRICS: {Scope.METRICS},
    Scope.OPERATE: set(Scope),
}
JOB_ROUTES = [route for route in ROUTES if "{job_id}" in route[1]]
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


def test_every_route_has_a_row(redis_url: str) -> None:
    routes = {
        (method, context.path)
        for context in iter_route_contexts(create_app(load_settings(redis_url=redis_url)).routes)
        for method in context.methods or ("GET",)  # a folder of files
    }
    assert {route for route in routes if route[0] != "HEAD"} == set(ROUTES)


@pytest.mark.parametrize("scope", Scope)
def test_a_key_allows_what_its_scope_names(
    redis_client: Redis, redis_url: str, scope: Scope
) -> None:
    key = KeyStore(redis_client).add("tried", scopes=[scope])

    async def ask_all(client: httpx2.AsyncClient) -> list[tuple[Scope | None, httpx2.Response]]:
        return [
            (
                needed,
                await client.request(
                    method,
                    path.format(job_id="x", index=0, reference="scenes"),
                    headers=bearer(key),
                ),
            )
            for (method, path), needed in ROUTES.items()
        ]

    for needed, answer in with_api(redis_url, ask_all):
        if needed is None or needed in ALLOWED[scope]:
            assert answer.status_code in (200, 307, 404, 415, 422, 503), answer.url
            continue
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), answer.url
        assert answer.json()["detail"] == (
            f"this API key has the scope {scope}, and this request needs {needed}: use a key that "
            f"was made with `piqueue keys add NAME --scope {needed}`"
        )


def test_every_route_but_the_open_ones_needs_a_key(redis_client: Redis, redis_url: str) -> None:
    KeyStore(redis_client).add("alice")

    async def ask_all(client: httpx2.AsyncClient) -> dict[tuple[str, str], int]:
        return {
            (method, path): (
                await client.request(method, path.format(job_id="x", index=0, reference="scenes"))
            ).status_code
            for method, path in ROUTES
        }

    for route, status in with_api(redis_url, ask_all).items():
        assert (status == 401) is (ROUTES[route] is not None), route


def test_a_job_of_another_key_is_not_found_but_for_operators(
    redis_client: Redis, redis_url: str
) -> None:
    keys = KeyStore(redis_client)
    owner, other = keys.add("owner"), keys.add("other")
    operator = keys.add("operator", scopes=[Scope.OPERATE])

    async def ask(client: httpx2.AsyncClient) -> None:
        job = (await client.post("/jobs", json=JOB, headers=bearer(owner))).json()
        missing = "job_00000000000000000000000000"

        async def answer_about(
            job_id: str, key: str, method: str, path: str, **body: Any
        ) -> tuple[int, str]:
            params = {"item": 0} if path.endswith("/similar") else {}
            url = path.format(job_id=job_id, index=0)
            headers = bearer(key)
            answer = await client.request(method, url, headers=headers, params=params, **body)
            problem = {**answer.json(), "request_id": None}
            return answer.status_code, json.dumps(problem).replace(job_id, "")

        job_path = f"/jobs/{job['id']}"
        before = (await client.get(job_path, headers=bearer(owner))).json()
        for method, path in JOB_ROUTES:
            for body in ({}, {"json": JOB}) if method == "POST" else ({},):
                about = await answer_about(job["id"], other, method, path, **body)
                assert about == await answer_about(missing, other, method, path, **body), path
                assert about[0] == 404
                assert '"code": "job_not_found"' in about[1]
                assert "or it belongs to another key" in about[1]
        after = (await client.get(job_path, headers=bearer(owner))).json()
        assert after == before
        assert (await client.get("/jobs", headers=bearer(other))).json()["jobs"] == []
        operated = [
            (await client.request(method, job_path, headers=bearer(operator)))
            for method in ("GET", "DELETE")
        ]
        assert [answer.status_code for answer in operated] == [200, 204]

    with_api(redis_url, ask)


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
        redis_client.client_pause(60_000, all=False)
        began = time.monotonic()
        assert (await client.get("/jobs", headers=bearer(key))).status_code == 200
        took_s = time.monotonic() - began
        redis_client.client_unpause()
        return took_s

    try:
        assert with_api(redis_url, ask) < 8, "less than a command waits for Redis"
    finally:
        redis_client.client_unpause()
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
