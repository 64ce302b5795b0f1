"""The other routes: /scorefile/, health, models, limits, errors; and the imports of the API."""

import subprocess
import sys
import time
from typing import Any

import httpx2
import numpy as np
import pytest
from redis import Redis

from api.errors import STATUS
from model.images.decode import decode
from model.predictor import load_predictor
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import Stack
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from worker.jobs.errors import PiqueueError
from worker.jobs.ledger.connection import connect
from worker.jobs.settings import ARTIFACTS_PATH


def test_scorefile_scores_one_picture_through_the_queue(client: httpx2.Client) -> None:
    picture = jpeg(3)
    answer = client.post("/scorefile/", files={"file": ("a.jpg", picture)})
    assert answer.status_code == 200
    scores = answer.json()
    assert list(scores) == ["beach", "city", "sunset", "trees"]
    (expected,) = load_predictor(ARTIFACTS_PATH / "scenes" / "5").predict([decode(picture).pixels])
    np.testing.assert_allclose(list(scores.values()), expected.scores, atol=1e-4)


def test_a_picture_scored_through_scorefile_is_in_no_list(
    client: httpx2.Client, stack: Stack
) -> None:
    def listed() -> list[str]:
        return [job["id"] for job in client.get("/jobs", params={"limit": 1000}).json()["jobs"]]

    def stored() -> set[str]:
        """The jobs that have keys; those of earlier tests may run and get more of them."""
        keys = redis.scan_iter("piqueue:{*}:*")
        return {key.decode().split("{")[1].split("}")[0] for key in keys}

    before = listed()
    with connect(stack.redis_url) as redis:
        known = stored()
        client.post("/scorefile/", files={"file": ("a.jpg", jpeg(3))}).raise_for_status()
        [job_id] = stored() - known
        due: Any = redis.zscore("piqueue:expiries", f"expire {job_id} anyone")
        assert 0 < due / 1000 - time.time() <= 60, "it expires soon"
    assert listed() == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"data": {"model": "imagenet"}}, "the form has a part 'model', which has no effect here"),
        ({"params": {"model": "imagenet"}}, "there is no parameter 'model' here: remove it"),
    ],
)
def test_scorefile_refuses_options_that_it_would_ignore(
    client: httpx2.Client, more: dict[str, Any], says: str
) -> None:
    answer = client.post("/scorefile/", files={"file": ("a.jpg", jpeg(3))}, **more)
    assert (answer.status_code, answer.json()["detail"][: len(says)]) == (422, says)


def test_scorefile_refuses_a_file_that_is_no_picture(client: httpx2.Client) -> None:
    answer = client.post("/scorefile/", files={"file": ("a.jpg", b"hello")})
    assert (answer.status_code, answer.json()["code"]) == (422, "items_refused")
    answer = client.post("/scorefile/", files={"file": ("a.jpg", jpeg(3)[:3000])})
    assert (answer.status_code, answer.json()["code"]) == (422, "upload_rejected")
    assert "truncated" in answer.json()["detail"]
    answer = client.post("/scorefile/", files={"picture": ("a.jpg", jpeg(3))})
    assert (answer.status_code, answer.json()["code"]) == (422, "job_refused")
    assert "named `file`" in answer.json()["detail"]
    answer = client.post("/scorefile/", files={"file": ("a.jpg", bytes(20_000_001))})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_health_and_readiness(client: httpx2.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    [variant] = ready.pop("variants")
    assert ready == {"status": "ready", "workers": 1, "warm": 1}
    assert (variant["variant"], variant["workers"]) == ("float", 1)
    assert 0 < variant["picture_ms"] < 10_000


def test_readiness_says_what_the_configuration_of_redis_can_lose(
    stack: Stack, client: httpx2.Client
) -> None:
    def warned() -> bool:
        answers.append(client.get("/readyz"))
        return "warnings" in answers[-1].json()

    answers: list[httpx2.Response] = []
    assert not warned()
    with Redis.from_url(stack.redis_url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert eventually(warned)
        finally:
            redis.config_set("maxmemory-policy", "noeviction")
    ready = answers[-1]
    assert ready.status_code == 200
    assert ready.json()["warnings"] == [
        "a full Redis deletes jobs: set maxmemory-policy noeviction instead of allkeys-lru"
    ]
    assert eventually(lambda: not warned())


def test_models_are_listed_with_their_labels(client: httpx2.Client) -> None:
    imagenet, scenes = client.get("/models").json()
    assert (scenes["name"], scenes["version"], scenes["default"]) == ("scenes", "5", True)
    assert scenes["labels"] == ["beach", "city", "sunset", "trees"]
    assert set(scenes["thresholds"]) == set(scenes["labels"])
    assert (scenes["current"], scenes["top_k"], scenes["warm_workers"]) == (True, None, 1)
    assert [(one["variant"], one["workers"]) for one in scenes["variants"]] == [("float", 1)]
    assert (imagenet["name"], imagenet["default"], imagenet["top_k"]) == ("imagenet", False, 5)
    assert len(imagenet["labels"]) == 1000


def test_the_documentation_is_served(client: httpx2.Client) -> None:
    assert "swagger" in client.get("/docs").text.lower()
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/jobs", "/jobs/{job_id}", "/jobs/{job_id}/results", "/scorefile/"} <= set(paths)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("PUT", "/jobs", 405),
        ("GET", "/jobs/job_x", 404),
        ("GET", "/jobs/job_x/results?limit=0", 422),
        ("GET", "/jobs/job_x?results=perhaps", 422),
    ],
)
def test_every_error_is_a_problem(client: httpx2.Client, method: str, path: str, code: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == code
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == code
    assert problem["type"].startswith("urn:piqueue:problem:")
    assert problem["title"]
    assert problem["detail"]


def all_errors(kind: type[PiqueueError]) -> set[type[PiqueueError]]:
    children = set(kind.__subclasses__())
    return children.union(*(all_errors(child) for child in children))


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == {
        error for error in all_errors(PiqueueError) if not error.__name__.startswith("_")
    }


def test_the_api_starts_without_the_libraries_and_modules_of_the_workers() -> None:
    script = """
import sys
from typing import Any
import api.main
from worker.jobs.settings import Settings
api.main.create_app(Settings())
print(*sorted(sys.modules))
"""
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(answer.stdout.split())
    assert "api.main" in loaded
    packages = {name.partition(".")[0] for name in loaded}
    libraries = {
        "tensorflow",
        "keras",
        "numpy",
        "PIL",
        "ai_edge_litert",
        "aiohttp",
        "boto3",
        "celery",
    }
    assert not packages & (libraries | {"pandas", "pyarrow", "model", "piqueue", "scripts"})
    ours = {name for name in loaded if name.startswith("worker.")}
    assert {name.split(".")[1] for name in ours} == {"jobs"}


def test_without_redis_or_worker_the_service_says_so(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from fastapi.testclient import TestClient

    from api.main import create_app
    from worker.jobs.settings import load_settings

    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        app = create_app(load_settings(redis_url=redis.url))
        with TestClient(app, base_url="http://localhost") as client:
            answer = client.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            redis.stop()
            for path in ("/readyz", "/jobs/job_x"):
                answer = client.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
                assert int(answer.headers["retry-after"]) > 0
            assert client.get("/healthz").status_code == 200


def test_a_request_has_its_id_in_the_response_and_in_errors(client: httpx2.Client) -> None:
    given = client.get("/jobs/job_x", headers={"X-Request-ID": "my-request.7"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "my-request.7"
    invalid = client.get("/healthz", headers={"X-Request-ID": "a b"})
    assert len(invalid.headers["x-request-id"]) == 32


def test_the_limits_are_listed(client: httpx2.Client) -> None:
    limits = client.get("/limits").json()
    assert limits["max_files"] == 120
    assert limits["results_formats"] == ["json", "jsonl", "csv", "parquet"]
    assert limits["quota_items"] is None
    assert limits["waiting_items"] >= 0
