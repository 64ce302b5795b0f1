"""Jobs of several models: the scores of each, in every form in which results are read."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet
import pytest
from redis import Redis

from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.documents import block_of
from tests.pictures import jpeg
from worker.jobs.ledger.store import JobStore

BOTH = ["scenes", "imagenet"]
SCENES = ["scenes/beach", "scenes/city", "scenes/sunset", "scenes/trees"]
SAMPLES = [Path("scripts/samples") / name for name in ("beach.jpg", "fig.jpg", "campus.jpg")]


def submit(client: httpx2.Client, **options: Any) -> dict[str, Any]:
    """The finished job of some sample photos."""
    form: list[Any] = [("files", (path.name, path.read_bytes())) for path in SAMPLES]
    form.append(("options", (None, json.dumps(options))))
    return wait_done(client, client.post("/jobs", files=form).raise_for_status().json())


@pytest.fixture(scope="module")
def reader(stack: Stack) -> Any:
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def job(reader: httpx2.Client) -> dict[str, Any]:
    return submit(reader, models=BOTH)


def test_a_picture_gets_the_scores_that_each_model_gives_alone(
    reader: httpx2.Client, job: dict[str, Any]
) -> None:
    versions = [f"{one['name']}@{one['version']}" for one in job["models"]]
    assert versions == ["scenes@5", "imagenet@2"]
    assert (job["model"]["name"], job["model"]["version"]) == ("scenes+imagenet", "5+2")
    alone = [submit(reader, model=name) for name in BOTH]
    assert [one["models"] for one in alone] == [None, None]
    assert len(job["results"]) == len(SAMPLES)
    for together, *each in zip(job["results"], *(one["results"] for one in alone), strict=True):
        expected = {
            f"{name}/{label}": score
            for name, result in zip(BOTH, each, strict=True)
            for label, score in result["scores"].items()
        }
        assert list(together["scores"]) == list(expected)
        # Many scores are stored in steps of 1/65535.
        assert together["scores"] == pytest.approx(expected, abs=2e-5)
        labels = [
            f"{name}/{label}"
            for name, result in zip(BOTH, each, strict=True)
            for label in result["labels"]
        ]
        assert together["labels"] == labels


def test_a_report_names_all_models_and_their_labels(
    reader: httpx2.Client, job: dict[str, Any]
) -> None:
    report = reader.get(f"/jobs/{job['id']}/report").raise_for_status().text
    assert "model scenes@5, imagenet@2 ·" in report
    for result in job["results"]:
        for label in result["labels"]:
            assert f'<b title="{label}">' in report


def test_filters_name_a_model_and_its_label(reader: httpx2.Client, job: dict[str, Any]) -> None:
    results = job["links"]["results"]
    found = reader.get(results, params={"label": "scenes/beach"}).json()["items"]
    assert found
    assert [one["id"] for one in found] == [
        one["id"] for one in job["results"] if "scenes/beach" in one["labels"]
    ]
    (fig,) = (one for one in job["results"] if one["id"] == "fig.jpg")
    label, score = list(fig["scores"].items())[4]
    assert label.startswith("imagenet/")
    query: dict[str, str | int] = {"above": f"{label}:{score - 0.001}", "top_k": 1}
    found = reader.get(results, params=query).json()["items"]
    assert [one["id"] for one in found] == ["fig.jpg"]
    assert [label.partition("/")[0] for label in found[0]["scores"]] == BOTH
    refused = reader.get(results, params={"label": "beach"})
    assert refused.status_code == 422
    assert "use one of scenes/beach" in refused.json()["detail"]


def test_a_table_has_the_columns_of_each_model(reader: httpx2.Client, job: dict[str, Any]) -> None:
    results = job["links"]["results"]
    ranks = [f"imagenet/{name}_{rank}" for rank in range(1, 6) for name in ("top", "score")]
    header, *rows = csv.reader(io.StringIO(reader.get(results, params={"format": "csv"}).text))
    assert header[2:] == ["status", *SCENES, *ranks, "labels", "error_code", "error_detail"]
    for row, result in zip(rows, job["results"], strict=True):
        scores = list(result["scores"].items())
        assert [float(cell) for cell in row[3:7]] == [score for _, score in scores[:4]]
        assert row[7:9] == [scores[4][0], str(scores[4][1])]
        assert row[17] == ";".join(result["labels"])
    body = reader.get(results, params={"format": "parquet", "top_k": 2}).content
    names = pyarrow.parquet.read_table(io.BytesIO(body)).column_names
    assert names[3:11] == [*SCENES, *ranks[:4]]


def test_the_documented_body_names_two_models(client: httpx2.Client) -> None:
    body = block_of("docs/models.md", "imagenet").text
    body = body.replace("https://example.com", "http://127.0.0.1:1")
    headers = {"Content-Type": "application/json"}
    made = client.post("/jobs", content=body, headers=headers).raise_for_status().json()
    assert made["model"]["name"] == "scenes+imagenet"


def test_a_query_separates_the_models_by_commas(client: httpx2.Client) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    body = b'{"url": "http://127.0.0.1:1/a.jpg"}'
    given = client.post("/jobs?models=imagenet,scenes", content=body, headers=headers)
    assert given.json()["model"]["name"] == "imagenet+scenes"
    twice = client.post("/jobs?models=imagenet&models=scenes", content=body, headers=headers)
    assert (twice.status_code, twice.json()["code"]) == (422, "job_refused")
    assert "the parameter models is there twice" in twice.json()["detail"]


@pytest.mark.parametrize(
    ("options", "status", "detail"),
    [
        ({"models": ["scenes", "cats"]}, 422, "no model 'cats': use one of imagenet@2, scenes@5"),
        ({"models": ["scenes", "scenes@5"]}, 422, "scenes is named twice"),
        ({"model": "scenes", "models": ["imagenet"]}, 422, "has both model and models"),
        ({"models": []}, 422, "models"),
        ({"models": [""]}, 422, "models"),
    ],
)
def test_models_that_cannot_be_used_are_refused(
    client: httpx2.Client, options: dict[str, Any], status: int, detail: str
) -> None:
    refused = client.post("/jobs", json={"urls": ["http://127.0.0.1:1/a.jpg"], **options})
    assert (refused.status_code, detail in refused.json()["detail"]) == (status, True), refused.text


def test_a_retry_and_a_draft_keep_the_versions_of_all_models(
    client: httpx2.Client, stack: Stack
) -> None:
    draft = client.post("/jobs", json={"draft": True, "models": BOTH}).raise_for_status().json()
    assert [one["name"] for one in draft["models"]] == BOTH
    files = [("files", ("cut.jpg", jpeg(1)[:2000]))]
    client.post(f"{draft['links']['self']}/items", files=files).raise_for_status()
    job = wait_done(client, client.post(f"{draft['links']['self']}/submit").json())
    assert (job["status"], job["models"]) == ("failed", draft["models"])
    again = client.post(f"{job['links']['self']}/retry").raise_for_status().json()
    assert again["models"] == job["models"]
    with Redis.from_url(stack.redis_url) as redis:
        assert JobStore(redis).options(again["id"])["models"] == ["scenes@5", "imagenet@2"]
