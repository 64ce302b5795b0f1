"""Versions of a model in real workers: promoted, loaded, released to others, given up."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from scripts.commands.__main__ import main
from scripts.images.s3_server import BUCKET, S3Server
from scripts.local.stack import ROOT, Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from tests.worker.fetching.site import Site
from tests.worker.registry import add_version
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import load_settings
from worker.upkeep.model_refresh import ModelRefresher

PLACES = ["beach", "city", "sunset", "trees"]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with a first version, which is the default model of the test."""
    registry = tmp_path / "registry"
    add_version(registry, "1")
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(registry))
    monkeypatch.setenv("PIQUEUE_DEFAULT_MODEL", "places")
    return registry


@contextmanager
def serving(registry: Path, **env: str) -> Iterator[tuple[Stack, httpx2.Client]]:
    with (
        Stack(registry.parent / "stack", env={**STACK_ENV, **env}) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        yield stack, client


def soon(condition: Callable[[], bool]) -> bool:
    return eventually(condition, deadline_s=60)


def piqueue_models(*arguments: str) -> None:
    assert main(["models", *arguments]) == 0


def model(client: httpx2.Client, version: str) -> dict[str, Any]:
    """Give what the API says of a version; one that it does not know yet is not warm."""
    found: list[dict[str, Any]] = client.get("/models").raise_for_status().json()
    ours = [one for one in found if (one["name"], one["version"]) == ("places", version)]
    return ours[0] if ours else {"warm_workers": 0}


def submit(client: httpx2.Client, reference: str, count: int = 3) -> dict[str, Any]:
    files = [("files", (f"{seed}.jpg", jpeg(seed))) for seed in range(count)]
    options = {"options": (None, f'{{"model": "{reference}"}}', "application/json")}
    answer = client.post("/jobs", files=[*files, *options.items()])
    job: dict[str, Any] = answer.raise_for_status().json()
    return job


def worker_log(registry: Path, event: str) -> list[dict[str, Any]]:
    log = (registry.parent / "stack" / "worker-1.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_promoted_version_is_warm_before_its_first_job_and_running_jobs_keep_theirs(
    registry: Path,
) -> None:
    picture, held = jpeg(1), asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=picture)

    timeout = {"PIQUEUE_FETCH_TIMEOUT_S": "120"}
    with Site({"/hold.jpg": hold}) as site, serving(registry, **timeout) as (stack, client):
        workers = stack.workers
        first = client.post("/jobs", json={"urls": [site.url("/hold.jpg")]}).json()

        draft = client.post("/jobs", json={"draft": True}).json()
        item = {"files": ("a.jpg", picture)}
        client.post(f"/jobs/{draft['id']}/items", files=item).raise_for_status()

        made = add_version(registry.parent / "made", "2", bundled="imagenet")
        piqueue_models("add", str(made))
        assert (model(client, "1")["current"], model(client, "2")["current"]) == (True, False)
        piqueue_models("promote", "places", "2")
        assert soon(lambda: model(client, "2")["warm_workers"] == 1)
        assert (model(client, "1")["default"], model(client, "2")["default"]) == (False, True)
        ready = client.get("/readyz").json()
        assert (ready["status"], ready["workers"], ready["warm"]) == ("ready", 1, 1)

        second = wait_done(client, submit(client, "places"))
        assert second["model"]["version"] == "2"
        assert {len(result["scores"]) for result in second["results"]} == {5}

        begun_before = client.post(f"/jobs/{draft['id']}/submit").raise_for_status().json()
        assert wait_done(client, begun_before)["model"]["version"] == "1"

        piqueue_models("rollback", "places")
        third = wait_done(client, submit(client, "places"))
        assert third["model"]["version"] == "1"

        site.call(held.set)
        first = wait_done(client, first)
        assert first["model"]["version"] == "1"
        assert list(first["results"][0]["scores"]) == PLACES
        assert stack.workers == workers, "a worker was restarted"


def test_jobs_of_models_that_fit_one_at_a_time_are_all_scored(registry: Path) -> None:
    add_version(registry, "2", bundled="imagenet")
    env = {"PIQUEUE_MODELS_MEMORY_BYTES": "60000000", "PIQUEUE_THREADS": "2"}
    with serving(registry, **env, PIQUEUE_CHUNK_ITEMS="4") as (_, client):
        jobs = [submit(client, f"places@{version}", 12) for version in "1212"]
        for job, version in zip(jobs, "1212", strict=True):
            done = wait_done(client, job)
            assert (done["status"], done["model"]["version"]) == ("succeeded", version)
            assert {len(one["scores"]) for one in done["results"]} == {{"1": 4, "2": 5}[version]}
        warm = [one["warm_workers"] for one in client.get("/models").json()]
        assert sum(warm) <= 1
    assert "2" in {line["version"] for line in worker_log(registry, "model_evicted")}


def test_a_worker_without_a_version_releases_its_jobs_to_workers_that_have_it(
    registry: Path,
) -> None:
    with serving(registry, PIQUEUE_CHUNK_ITEMS="2") as (stack, client):
        old = registry.parent / "old"
        add_version(old, "1")
        env = {
            **os.environ,
            "PIQUEUE_REDIS_URL": stack.redis_url,
            "PIQUEUE_REGISTRY_URL": str(old),
        }
        with (
            (registry.parent / "old.log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "worker"], cwd=ROOT, env=env, stdout=log, stderr=log
            ) as worker,
        ):
            try:
                assert soon(lambda: client.get("/readyz").json().get("workers") == 2)
                add_version(registry, "2", bundled="imagenet")
                job = wait_done(client, submit(client, "places@2", 40))
                assert (job["status"], job["counts"]["succeeded"]) == ("succeeded", 40)
                assert {one["attempts"] for one in job["results"]} == {1}

                def old_worker_is_unable() -> bool:
                    # The other worker may have been faster so far.
                    wait_done(client, submit(client, "places@2", 40))
                    return bool(model(client, "2")["unable_workers"] == 1)

                assert soon(old_worker_is_unable)
                assert soon(lambda: model(client, "2")["warm_workers"] == 1)
                assert worker.poll() is None
            finally:
                worker.terminate()


def test_jobs_of_a_version_that_no_worker_can_load_fail_with_a_reason(registry: Path) -> None:
    with serving(registry, PIQUEUE_MODEL_WAIT_S="1") as (stack, client):
        broken = add_version(registry, "2")
        (broken / "model.tflite").write_bytes(b"not the file of the card")
        job = wait_done(client, submit(client, "places@2"))
        assert (job["status"], job["failures"]) == ("failed", {"model_error": 3})
        add_version(registry, "1", name="huge", memory_bytes=10**12)
        assert wait_done(client, submit(client, "huge"))["failures"] == {"model_error": 3}
        reasons = [line["reason"] for line in worker_log(registry, "model_unusable")]
        assert any("raise PIQUEUE_MODELS_MEMORY_BYTES" in reason for reason in reasons)

        error = job["results"][0]["error"]
        assert (error["stage"], error["retryable"]) == ("infer", True)
        assert error["detail"] == "no worker can load places@2; the workers' logs say why"

        for version in "12":
            piqueue_models("promote", "places", version)

        def says_what_to_do() -> bool:
            ready = client.get("/readyz")
            hint = "piqueue models rollback places"
            return ready.status_code == 503 and hint in ready.json()["detail"]

        assert soon(says_what_to_do)
        assert wait_done(client, submit(client, "places@1"))["status"] == "succeeded"
        piqueue_models("rollback", "places")
        assert soon(lambda: client.get("/readyz").status_code == 200)
        assert len(stack.workers) == 1


def test_a_model_that_is_gone_is_logged_once_each_time(registry: Path) -> None:
    catalog = open_catalog(load_settings())
    warm = [catalog.resolve("places").ref]
    runtime: Any = SimpleNamespace(catalog=catalog, models=SimpleNamespace(warm=warm))
    refresher = ModelRefresher(runtime)
    away = registry.parent / "away"
    with capture_logs() as logs:
        for removed_count in (1, 2):
            (registry / "places").rename(away)
            for _ in range(3):
                assert refresher._current() == []
            away.rename(registry / "places")
            assert [one.name for one in refresher._current()] == ["places"] * 2
            # It is the default model too.
            assert [one["event"] for one in logs] == ["model_gone"] * 2 * removed_count


def test_a_running_worker_fetches_a_new_version_from_s3(
    registry: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{registry.parent.name}"
    cache_path = registry.parent / "cache"
    shared = open_catalog(load_settings(registry_url=url, models_cache_path=cache_path))
    shared.add(registry / "places" / "1")
    env = {
        **s3_server.env,
        "PIQUEUE_REGISTRY_URL": url,
        "PIQUEUE_MODELS_CACHE_PATH": str(cache_path),
    }
    with serving(registry, **env) as (_, client):
        assert wait_done(client, submit(client, "places"))["model"]["version"] == "1"
        shared.add(add_version(registry.parent / "made", "2", bundled="imagenet"))
        shared.promote("places", "2")
        assert soon(lambda: model(client, "2")["warm_workers"] == 1)
        done = wait_done(client, submit(client, "places"))
        assert (done["status"], done["model"]["version"]) == ("succeeded", "2")
