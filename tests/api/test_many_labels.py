"""A model of a thousand labels: its natural answer is the best five, and all scores are kept."""

import csv
import io
import json
import uuid
from typing import Any

import httpx2
import pyarrow.parquet
import pytest

from tests.api.polling import until_cached, wait_done
from tests.golden import SAMPLES

GOLDEN = json.loads((SAMPLES.parents[1] / "tests" / "model" / "golden_imagenet.json").read_text())[
    "scores"
]


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    """Filled by the first test that asks for it, by way of `scored`."""
    return {}


@pytest.fixture
def scored(client: httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    """A job of two photos and one file that is none, scored by imagenet."""
    if not job:
        photos = ["mountains.jpg", "forest_stream.jpg"]
        files = [("files", (name, (SAMPLES / name).read_bytes())) for name in photos]
        files.append(("files", ("cut.jpg", (SAMPLES / "beach.jpg").read_bytes()[:300])))
        options = ("options", (None, b'{"model": "imagenet"}', "application/json"))
        answer = client.post("/jobs", files=[*files, options]).raise_for_status()
        job.update(wait_done(client, answer.json()))
    return job


def results(client: httpx2.Client, job: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    page = client.get(f"/jobs/{job['id']}/results", params=query).raise_for_status().json()
    items: list[dict[str, Any]] = page["items"]
    return items


def test_the_answer_is_the_best_five_in_order(
    client: httpx2.Client, scored: dict[str, Any]
) -> None:
    assert scored["model"]["name"] == "imagenet"
    for items in (scored["results"], results(client, scored)):
        for item, photo in zip(items, ["mountains.jpg", "forest_stream.jpg"], strict=False):
            assert item["scores"] == pytest.approx(GOLDEN[photo], abs=0.005)
            assert list(item["scores"]) == list(GOLDEN[photo])
        assert [item["labels"] for item in items] == [["alp"], ["valley"], None]
        assert items[2]["scores"] is None


def test_labels_are_named_for_their_histogram_and_for_further_scores(
    client: httpx2.Client, scored: dict[str, Any]
) -> None:
    path = f"/jobs/{scored['id']}/histogram"
    unnamed = client.get(path)
    assert unnamed.status_code == 422
    assert "1000 labels: name up to 20" in unnamed.json()["detail"]
    named = client.get(path, params={"label": ["alp", "tench"]}).json()["labels"]
    assert [sum(named[label]["counts"]) for label in ("alp", "tench")] == [2, 2]
    first = results(client, scored, include=["tench", "alp"])[0]["scores"]
    assert list(first)[:5] == list(GOLDEN["mountains.jpg"])
    assert list(first)[5:] == ["tench"]
    assert first["tench"] < 0.01


def test_any_number_of_scores_can_be_read_without_scoring_again(
    client: httpx2.Client, scored: dict[str, Any]
) -> None:
    assert list(results(client, scored, top_k=1)[0]["scores"]) == ["alp"]
    every = results(client, scored, top_k=1000)[0]["scores"]
    assert len(every) == 1000
    assert sum(every.values()) == pytest.approx(1, abs=0.013)
    assert list(every.values()) == sorted(every.values(), reverse=True)


def test_a_threshold_makes_labels_of_the_best(
    client: httpx2.Client, scored: dict[str, Any]
) -> None:
    assert results(client, scored, threshold=0.01)[0]["labels"] == ["alp", "valley", "cliff"]
    found = results(client, scored, threshold=0.02, label="valley")
    assert [item["id"] for item in found] == ["mountains.jpg", "forest_stream.jpg"]
    answer = client.get(f"/jobs/{scored['id']}/results", params={"label": "beach"})
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) < 2000


@pytest.mark.parametrize("top_k", [None, 2])
def test_a_table_has_columns_for_the_best_and_none_for_each_label(
    client: httpx2.Client, scored: dict[str, Any], top_k: int | None
) -> None:
    query = {"format": "csv"} | ({"top_k": str(top_k)} if top_k else {})
    text = client.get(f"/jobs/{scored['id']}/results", params=query).raise_for_status().text
    header, first, _, cut = csv.reader(io.StringIO(text))
    ranks = [f"{name}_{rank}" for rank in range(1, (top_k or 5) + 1) for name in ("top", "score")]
    assert header == ["id", "filename", "status", *ranks, "labels", "error_code", "error_detail"]
    row = dict(zip(header, first, strict=True))
    best = list(GOLDEN["mountains.jpg"].items())
    assert (row["top_1"], row["top_2"], row["labels"]) == (best[0][0], best[1][0], "alp")
    assert float(row["score_2"]) == pytest.approx(best[1][1], abs=0.005)
    assert cut[3 : 3 + len(ranks)] == [""] * len(ranks)


def test_parquet_has_the_same_columns(client: httpx2.Client, scored: dict[str, Any]) -> None:
    query = {"format": "parquet"}
    body = client.get(f"/jobs/{scored['id']}/results", params=query).raise_for_status().content
    table = pyarrow.parquet.read_table(io.BytesIO(body))
    assert table.column("top_1").to_pylist() == ["alp", "valley", None]
    assert str(table.schema.field("score_5").type) == "double"


def test_the_cache_returns_all_scores(client: httpx2.Client) -> None:
    # Bytes after its end make it a picture that no other test has scored with the cache.
    photo = (SAMPLES / "mountains.jpg").read_bytes() + uuid.uuid4().bytes

    def submit() -> dict[str, Any]:
        options = b'{"model": "imagenet@2", "use_cache": true}'
        parts: list[Any] = [
            ("files", ("a.jpg", photo)),
            ("options", (None, options, "application/json")),
        ]
        return wait_done(client, client.post("/jobs", files=parts).raise_for_status().json())

    seen = [results(client, job, top_k=1000)[0] for job in (submit(), until_cached(submit, 1))]
    assert [one["cached"] for one in seen] == [False, True]
    assert seen[0]["scores"] == seen[1]["scores"]
