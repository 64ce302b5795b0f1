"""A worker runs one variant of a model, and results, routes and metrics say which."""

import io
import json
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet
import pytest

from scripts.local.stack import Stack, listenable_port
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.model.colours import add_int8, add_int8_apart, write_colours, write_colours_apart
from tests.pictures import jpeg
from tests.scrape import read_scrape

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Of the converter, which asks for them although the pictures stay uint8.
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]


def submit(client: httpx2.Client, picture: bytes, **options: Any) -> dict[str, Any]:
    form: dict[str, Any] = {"files": ("1.jpg", picture), "options": (None, json.dumps(options))}
    answer = client.post("/jobs", files=form)
    job: dict[str, Any] = answer.raise_for_status().json()
    return job


def test_scores_are_cached_by_variant_and_everything_says_which_runs(tmp_path: Path) -> None:
    folder = tmp_path / "registry" / "colours" / "1"
    write_colours(folder)
    add_int8(folder)
    port = listenable_port("127.0.0.1", 0)
    env = {
        **STACK_ENV,
        "PIQUEUE_REGISTRY_URL": str(tmp_path / "registry"),
        "PIQUEUE_DEFAULT_MODEL": "colours",
        "PIQUEUE_METRICS_PORT": str(port),
        "PIQUEUE_MODELS_CACHE_PATH": str(tmp_path / "cache"),
    }
    seen = []
    for variant in ("int8", "float", "int8"):
        running = {**env, "PIQUEUE_MODEL_VARIANT": variant}
        with (
            Stack(tmp_path / "stack", env=running) as stack,
            httpx2.Client(base_url=stack.url, timeout=60) as client,
        ):
            [ready] = client.get("/readyz").json()["variants"]
            assert (ready["variant"], ready["workers"]) == (variant, 1)
            [of_model] = [one for one in client.get("/models").json() if one["default"]]
            assert of_model["variants"] == [ready]
            value = read_scrape(httpx2.get(f"http://127.0.0.1:{port}/metrics").text)
            seconds = value("piqueue_variant_seconds", model="colours@1", variant=variant)
            assert 0 < seconds == pytest.approx(ready["picture_ms"] / 1000)

            [result] = wait_done(client, submit(client, jpeg(1), use_cache=True))["results"]
            seen.append((result["variant"], result["cached"]))
            [failed] = wait_done(client, submit(client, jpeg(1)[:300], use_cache=True))["results"]
            assert failed["variant"] is None
    assert seen == [("int8", False), ("float", False), ("int8", True)]
    assert (tmp_path / "cache" / "speeds.json").is_file()


def test_kept_features_say_their_variant_and_are_scored_with_its_calibration(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "registry" / "colours" / "1"
    write_colours_apart(folder)
    add_int8_apart(folder)
    env = {
        **STACK_ENV,
        "PIQUEUE_REGISTRY_URL": str(tmp_path / "registry"),
        "PIQUEUE_DEFAULT_MODEL": "colours",
        "PIQUEUE_MODELS_CACHE_PATH": str(tmp_path / "cache"),
    }
    kept: dict[str, Any] = {}
    for variant in ("int8", "float"):
        running = {**env, "PIQUEUE_MODEL_VARIANT": variant}
        with (
            Stack(tmp_path / "stack", env=running) as stack,
            httpx2.Client(base_url=stack.url, timeout=60) as client,
        ):
            kept[variant] = wait_done(client, submit(client, jpeg(1), keep_features=True))
            links = kept["int8"]["links"]
            body = client.post(f"{links['self']}/rescore", json={"model": "colours"}).json()
            [again] = wait_done(client, body)["results"]
            [first] = kept["int8"]["results"]
            assert again["variant"] == first["variant"] == "int8"
            assert again["scores"] == pytest.approx(first["scores"], abs=0.01)
            query = {"format": "parquet", "embeddings": "true"}
            content = client.get(links["results"], params=query).raise_for_status().content
            [row] = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
            assert row["embedding_variant"] == "int8"
    [of_float] = kept["float"]["results"]
    difference = [of_float["scores"][label] - score for label, score in first["scores"].items()]
    assert max(map(abs, difference)) > 0.05
