"""Kept features: stored beside a job's uploads, and exported as Parquet."""

import io
import json
from pathlib import Path
from typing import Any

import duckdb
import httpx2
import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from model.images.decode import decode
from model.predictor import load_predictor
from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from worker.jobs.settings import ARTIFACTS_PATH

SAMPLES = [Path("scripts/samples") / name for name in ("beach.jpg", "fig.jpg", "campus.jpg")]
WIDTH = 1280


def submit(client: httpx2.Client, **options: Any) -> dict[str, Any]:
    """The finished job of some sample photos, the first of them twice, and of a broken one."""
    form: list[Any] = [("files", (path.name, path.read_bytes())) for path in SAMPLES]
    form.append(("files", ("again.jpg", SAMPLES[0].read_bytes())))
    form.append(("files", ("cut.jpg", jpeg(1)[:500])))
    form.append(("options", (None, json.dumps(options))))
    return wait_done(client, client.post("/jobs", files=form).raise_for_status().json())


def upload_bytes(client: httpx2.Client) -> int:
    return int(client.get("/limits").raise_for_status().json()["upload_bytes"])


def embeddings(client: httpx2.Client, job: dict[str, Any], **query: str) -> Any:
    params = {"format": "parquet", "embeddings": "true", **query}
    body = client.get(job["links"]["results"], params=params).raise_for_status().content
    return pyarrow.parquet.read_table(io.BytesIO(body))


def expected(path: Path) -> NDArray[np.float32]:
    predictor = load_predictor(ARTIFACTS_PATH / "scenes" / "5", "litert")
    (prediction,) = predictor.predict([decode(path.read_bytes(), predictor.card.input_size).pixels])
    (features,) = prediction.features.values()
    return features.values


@pytest.fixture(scope="module")
def reader(stack: Stack) -> Any:
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def job(reader: httpx2.Client) -> dict[str, Any]:
    return submit(reader, keep_features=True)


def test_the_table_has_the_features_of_each_picture(
    reader: httpx2.Client, job: dict[str, Any]
) -> None:
    table = embeddings(reader, job)
    assert table.column_names[-3:] == ["sha256", "embedding", "embedding_variant"]
    rows = {row["id"]: row for row in table.to_pylist()}
    for result in job["results"]:
        image = result["image"]
        assert rows[result["id"]]["sha256"] == (image and image["sha256"])
    assert rows["cut.jpg"]["embedding"] is rows["cut.jpg"]["embedding_variant"] is None
    for path in SAMPLES:
        found, features = np.array(rows[path.name]["embedding"]), expected(path)
        step = (features.max() - features.min()) / 255
        assert found.shape == (WIDTH,)
        assert rows[path.name]["embedding_variant"] == "float"
        assert np.abs(found - features).max() <= 0.51 * step
    assert rows["again.jpg"]["embedding"] == rows["beach.jpg"]["embedding"]
    one = embeddings(reader, job, search="fig").to_pylist()
    assert [row["id"] for row in one] == ["fig.jpg"]
    assert one[0]["embedding"] == rows["fig.jpg"]["embedding"]


def test_duckdb_and_scikit_learn_read_the_table(
    reader: httpx2.Client, job: dict[str, Any], tmp_path: Path
) -> None:
    pyarrow.parquet.write_table(embeddings(reader, job), tmp_path / "e.parquet")
    alike = duckdb.execute(
        f"""
        SELECT b.id, array_cosine_similarity(a.embedding::FLOAT[{WIDTH}],
                                             b.embedding::FLOAT[{WIDTH}]) AS similarity
        FROM '{tmp_path}/e.parquet' a, '{tmp_path}/e.parquet' b
        WHERE a.id = 'beach.jpg' AND b.embedding IS NOT NULL ORDER BY similarity DESC, b.id
        """
    ).fetchall()
    assert [row[0] for row in alike[:2]] == ["again.jpg", "beach.jpg"]
    assert alike[1][1] == pytest.approx(1, abs=1e-5)
    assert alike[2][1] < 0.9

    table = embeddings(reader, job, status="succeeded")
    features = np.stack(table["embedding"].to_numpy())
    nearest = NearestNeighbors(n_neighbors=2).fit(features)
    ids = table["id"].to_pylist()
    (pair,) = nearest.kneighbors(features[[ids.index("beach.jpg")]], return_distance=False)
    assert {ids[index] for index in pair} == {"beach.jpg", "again.jpg"}


def test_a_picture_takes_at_most_1400_bytes_until_its_job_is_deleted(
    reader: httpx2.Client, stack: Stack
) -> None:
    job = submit(reader, keep_features=True)
    folder = Path(stack.storage_url) / job["id"][-2:] / job["id"] / "features"
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert 3 * WIDTH < sum(sizes) <= 4 * 1400
    stored = upload_bytes(reader)
    reader.delete(job["links"]["self"]).raise_for_status()
    assert not folder.exists()
    assert upload_bytes(reader) <= stored - sum(sizes), "features count as stored"


def test_a_job_of_several_models_has_a_column_for_each_backbone(reader: httpx2.Client) -> None:
    job = submit(reader, models=["imagenet", "scenes"], keep_features=True)
    table = embeddings(reader, job, top_k="1")
    assert table.column_names[-2:] == ["scenes/embedding", "scenes/embedding_variant"]
    assert table["scenes/embedding"].null_count == 1


def test_features_are_kept_of_pictures_whose_scores_are_cached(reader: httpx2.Client) -> None:
    jobs = [submit(reader, use_cache=True, keep_features=keep) for keep in (False, True)]
    assert jobs[1]["counts"]["cached"] == 0
    assert embeddings(reader, jobs[1])["embedding"].null_count == 1


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"embeddings": "true"}, "embeddings is for Parquet"),
        ({"embeddings": "true", "format": "csv"}, "embeddings is for Parquet"),
        ({"embeddings": "true", "format": "parquet", "merge": "parents"}, "without merge"),
    ],
)
def test_other_forms_have_no_features(
    reader: httpx2.Client, job: dict[str, Any], query: dict[str, str], reason: str
) -> None:
    refused = reader.get(job["links"]["results"], params=query)
    assert (refused.status_code, reason in refused.json()["detail"]) == (422, True)


def test_a_job_without_the_option_says_so(reader: httpx2.Client) -> None:
    job = submit(reader)
    query = {"format": "parquet", "embeddings": "true"}
    refused = reader.get(job["links"]["results"], params=query)
    assert refused.status_code == 422
    assert f"{job['id']} was submitted without keep_features" in refused.json()["detail"]


@pytest.mark.parametrize("draft", [False, True])
def test_a_model_without_a_backbone_keeps_none(reader: httpx2.Client, draft: bool) -> None:
    options = {"model": "imagenet", "keep_features": True, "draft": draft}
    items = {} if draft else {"urls": ["http://127.0.0.1:1/a.jpg"]}
    refused = reader.post("/jobs", json={**items, **options})
    assert refused.status_code == 422
    assert "imagenet is one network, which gives no features" in refused.json()["detail"]


def test_features_are_never_kept_in_redis(tmp_path: Path) -> None:
    env = {**STACK_ENV, "PIQUEUE_STORAGE_URL": "redis"}
    with (
        Stack(tmp_path / "stack", env=env) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        body = {"urls": ["http://127.0.0.1:1/a.jpg"], "keep_features": True}
        refused = client.post("/jobs", json=body)
    assert refused.status_code == 422
    assert "set PIQUEUE_STORAGE_URL to a folder or a bucket" in refused.json()["detail"]
