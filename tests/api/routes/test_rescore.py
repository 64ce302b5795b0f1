"""Jobs that score the kept features of an earlier job."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from aiohttp import web

from model.artifact.card import Card, describe_file, load_card, write_card
from model.artifact.head import Head
from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Answer, Site
from tests.worker.registry import add_version

COUNT = 40


def write_coasts(registry: Path) -> None:
    """Add a model with two labels on the backbone of scenes: its last ones, the other way round."""
    folder = add_version(registry, "1", name="coasts")
    card = load_card(folder)
    head = Head.load(folder / "head.npz", len(card.labels))
    Head(np.ascontiguousarray(-head.kernel[:, 2:]), -head.bias[2:]).save(folder / "head.npz")
    files = card.files | {"head": describe_file(folder / "head.npz")}
    changed = {"labels": ("day", "bare"), "thresholds": (0.5, 0.5), "files": files}
    changed |= {"score_counts": {}}
    write_card(Card(**card.model_dump() | changed), folder)


def picture(index: int) -> Answer:
    body = jpeg(index)

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body)

    return answer


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve /0.jpg and so on; other paths are no pictures."""
    with Site({f"/{index}.jpg": picture(index) for index in range(COUNT)}) as running:
        yield running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("rescore")
    write_coasts(folder / "registry")
    env = {**STACK_ENV, "PIQUEUE_REGISTRY_URL": str(folder / "registry")}
    env["PIQUEUE_CHUNK_ITEMS"] = "8"
    with (
        Stack(folder / "stack", env=env) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        yield client


def submit(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    return wait_done(client, client.post("/jobs", json=body).raise_for_status().json())


def rescore(client: httpx2.Client, job: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = client.post(f"{job['links']['self']}/rescore", json=body)
    return wait_done(client, answer.raise_for_status().json())


def items(client: httpx2.Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(
        job["links"]["results"], params={"limit": 1000}
    ).json()["items"]
    return found


def scores(result: dict[str, Any]) -> list[float]:
    return list(result["scores"].values())


def test_the_scores_are_those_of_scoring_again_and_nothing_is_fetched(
    client: httpx2.Client, site: Site
) -> None:
    sent = [
        {"url": site.url(f"/{index}.jpg"), "id": f"p{index}", "columns": {"row": str(index)}}
        for index in range(COUNT)
    ]
    job = submit(client, items=sent, name="coast", keep_features=True, priority="bulk")
    again = submit(client, items=sent, models=["coasts", "scenes"])
    before = len(site.requests)
    found = rescore(client, job, models=["coasts", "scenes"])
    assert len(site.requests) == before
    assert (found["status"], found["rescore_of"], found["parent_job"]) == (
        "succeeded",
        job["id"],
        None,
    )
    assert (found["name"], found["counts"]["total"]) == ("coast", COUNT)
    assert found["hosts"] == [] != job["hosts"]
    for one, expected in zip(items(client, found), items(client, again), strict=True):
        for name in ("index", "id", "columns", "image", "source", "variant"):
            assert one[name] == expected[name]
        assert list(one["scores"]) == ["coasts/day", "coasts/bare", *expected["scores"]][:2] + [
            label for label in expected["scores"] if label.startswith("scenes/")
        ]
        # Features have 8 bits.
        np.testing.assert_allclose(scores(one), scores(expected), atol=0.02)
        assert one["ms"] == {"fetch": 0, "decode": 0, "infer": 0}
    table = client.get(found["links"]["results"], params={"format": "csv"}).text
    assert table.startswith("id,url,row,status,coasts/day,coasts/bare,scenes/beach")


def test_items_without_features_are_fetched_again(client: httpx2.Client, site: Site) -> None:
    late = "/late.jpg"
    urls = [site.url(path) for path in ("/1.jpg", late, "/2.jpg")]
    job = submit(client, urls=urls, keep_features=True)
    assert job["status"] == "partially_succeeded"
    before = len(site.requests)
    found = rescore(client, job, model="coasts")
    assert [one["status"] for one in items(client, found)] == ["succeeded", "failed", "succeeded"]
    assert {one.target for one in site.requests[before:]} == {late}


def test_uploads_are_scored_from_their_features_and_fail_as_before_without_them(
    client: httpx2.Client,
) -> None:
    files: list[Any] = [("files", (f"{index}.jpg", jpeg(index))) for index in range(3)]
    files.append(("files", ("cut.jpg", jpeg(1)[:500])))
    files.append(("options", (None, '{"keep_features": true}')))
    job = wait_done(client, client.post("/jobs", files=files).raise_for_status().json())
    found = items(client, rescore(client, job, model="coasts"))
    assert [one["status"] for one in found] == ["succeeded"] * 3 + ["failed"]
    assert found[3]["error"] == items(client, job)[3]["error"]
    assert found[3]["error"]["code"] == "truncated"
    key = uuid.uuid4().hex
    again = client.post(
        f"{job['links']['self']}/rescore",
        json={"model": "coasts"},
        headers={"Idempotency-Key": key},
    )
    same = client.post(
        f"{job['links']['self']}/rescore",
        json={"model": "coasts"},
        headers={"Idempotency-Key": key},
    )
    assert same.json()["id"] == again.json()["id"] != found
    assert same.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("keep", "body", "reason"),
    [
        (False, {"model": "coasts"}, "was submitted without keep_features"),
        (True, {"model": "imagenet"}, "has no features for imagenet"),
        (True, {"models": ["coasts", "imagenet"]}, "has no features for imagenet"),
        (True, {"model": "cats"}, "no model 'cats'"),
        (True, {"model": "coasts", "models": ["scenes"]}, "give either model or models"),
        (True, {}, "give either model or models"),
        (True, {"models": [""]}, "models"),
        (True, {"model": "coasts", "priority": "bulk"}, "priority"),
    ],
)
def test_what_cannot_be_scored_from_features_is_refused(
    client: httpx2.Client, site: Site, keep: bool, body: dict[str, Any], reason: str
) -> None:
    job = submit(client, urls=[site.url("/1.jpg")], keep_features=keep)
    refused = client.post(f"{job['links']['self']}/rescore", json=body)
    assert (refused.status_code, reason in refused.text) == (422, True), refused.text


def test_after_its_job_is_deleted_a_rescored_job_can_be_read_and_retried(
    client: httpx2.Client, site: Site
) -> None:
    job = submit(client, urls=[site.url("/1.jpg"), site.url("/none.jpg")], keep_features=True)
    found = rescore(client, job, model="coasts")
    client.delete(job["links"]["self"]).raise_for_status()
    assert [one["status"] for one in items(client, found)] == ["succeeded", "failed"]
    retried = client.post(f"{found['links']['self']}/retry").raise_for_status().json()
    assert (retried["parent_job"], retried["rescore_of"]) == (found["id"], None)
    assert wait_done(client, retried)["counts"]["total"] == 1


def test_a_rescored_job_names_the_job_that_has_the_features(
    client: httpx2.Client, site: Site
) -> None:
    job = submit(client, urls=[site.url("/1.jpg")], keep_features=True)
    links = rescore(client, job, model="coasts")["links"]
    again = client.post(f"{links['self']}/rescore", json={"model": "scenes"})
    read = client.get(links["results"], params={"format": "parquet", "embeddings": "true"})
    for answer in (again, read):
        assert answer.status_code == 422
        assert f"was scored from the features of {job['id']}: " in answer.json()["detail"]
