"""The pictures of a job that are alike: in the API, the clients and the command."""

import asyncio
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from piqueue import AsyncClient, Client, PiqueueApiError
from piqueue.cli import main
from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.api.web_page import Page
from tests.pictures import jpeg

# Indexes in the job.
FIRST, SMALLER, COPY, OTHER, BROKEN = range(5)
NAMES = ["beach.jpg", "beach-small.jpg", "copy.jpg", "other.jpg", "broken.jpg"]


def smaller(content: bytes) -> bytes:
    picture, made = Image.open(io.BytesIO(content)), io.BytesIO()
    picture.resize((200, 150), Image.Resampling.LANCZOS).save(made, "JPEG", quality=80)
    return made.getvalue()


def submit(client: httpx2.Client, **options: Any) -> dict[str, Any]:
    first = jpeg(900)
    contents = [first, smaller(first), first, jpeg(901), jpeg(902)[:300]]
    files: list[Any] = [("files", pair) for pair in zip(NAMES, contents, strict=True)]
    files.append(("options", (None, json.dumps(options))))
    return wait_done(client, client.post("/jobs", files=files).raise_for_status().json())


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: httpx2.Client) -> dict[str, Any]:
    """A job whose pictures were compared."""
    job = submit(client, keep_features=True, thumbnails=True)
    answer = client.get(f"/jobs/{job['id']}/duplicates")
    deadline = time.monotonic() + 60
    while answer.status_code == 503:
        assert answer.json()["code"] == "not_compared"
        assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
        answer = client.get(f"/jobs/{job['id']}/duplicates")
    assert answer.status_code == 200, answer.text
    return job


def similar(client: httpx2.Client, job: dict[str, Any], **params: Any) -> httpx2.Response:
    return client.get(f"/jobs/{job['id']}/similar", params=params)


def test_the_most_similar_pictures_of_one_come_first(
    client: httpx2.Client, job: dict[str, Any]
) -> None:
    answer = similar(client, job, item=FIRST)
    found = answer.raise_for_status().json()
    assert [one["index"] for one in found] == [COPY, SMALLER, OTHER]
    assert found[0]["similarity"] == 1
    assert 1 > found[1]["similarity"] > 0.9 > found[2]["similarity"]
    assert found[1]["id"] == "beach-small.jpg"
    assert found[1]["source"]["filename"] == "beach-small.jpg"
    assert answer.headers["Cache-Control"].startswith("private")
    assert answer.headers["Vary"] == "Authorization"
    of_other = similar(client, job, item=OTHER, limit=1).json()
    assert len(of_other) == 1


def test_pictures_that_are_nearly_the_same_are_a_group(
    client: httpx2.Client, job: dict[str, Any]
) -> None:
    page = client.get(f"/jobs/{job['id']}/duplicates").json()
    assert (page["compared"], page["group_count"], page["duplicate_count"]) == (4, 1, 2)
    (group,) = page["groups"]
    assert group["count"] == 3
    assert [one["index"] for one in group["items"]] == [FIRST, SMALLER, COPY]
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (BROKEN, "item 4 of .* has no features, because it failed"),
        (5, "has no item 5: give an index up to 4"),
    ],
)
def test_a_picture_without_features_is_named(
    client: httpx2.Client, job: dict[str, Any], item: int, message: str
) -> None:
    answer = similar(client, job, item=item)
    assert (answer.status_code, answer.json()["code"]) == (404, "item_not_found")
    with Client(str(client.base_url)) as ours, pytest.raises(PiqueueApiError, match=message):
        ours.similar(job["id"], item)


def test_a_job_without_features_says_how_to_get_them(
    client: httpx2.Client, job: dict[str, Any]
) -> None:
    without = submit(client)
    answer = similar(client, without, item=0)
    assert (answer.status_code, answer.json()["code"]) == (409, "features_not_kept")
    assert "submit its pictures again with that option" in answer.json()["detail"]
    answer = client.post(f"/jobs/{job['id']}/rescore", json={"model": "scenes"})
    rescored = wait_done(client, answer.raise_for_status().json())
    detail = client.get(f"/jobs/{rescored['id']}/duplicates").json()["detail"]
    assert "ask for those of that job" in detail
    assert job["id"] in detail


def test_both_clients_and_the_commands_list_what_is_alike(
    stack: Stack,
    job: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIQUEUE_URL", stack.url)

    async def with_async_client() -> tuple[list[int], list[int]]:
        async with AsyncClient(stack.url) as client:
            found = await client.similar(job["id"], FIRST, limit=2)
            groups = [group.count async for group in client.duplicates(job["id"])]
        return [one.index for one in found], groups

    assert asyncio.run(with_async_client()) == ([COPY, SMALLER], [3])
    with Client(stack.url) as client:
        assert [one.index for one in client.similar(job["id"], FIRST, limit=2)] == [COPY, SMALLER]
        assert [group.count for group in client.duplicates(job["id"])] == [3]

    def printed(*arguments: str) -> str:
        assert main(arguments) == 0
        return capsys.readouterr().out

    lines = printed("similar", job["id"], "beach.jpg", "--limit", "2").splitlines()
    assert lines[0] == "1.000  copy.jpg"
    assert lines[1].endswith("  beach-small.jpg")
    as_json = json.loads(printed("similar", job["id"], "0", "--json"))
    assert [one["index"] for one in as_json] == [COPY, SMALLER, OTHER]
    assert printed("duplicates", job["id"]) == (
        "3 pictures\n  beach.jpg\n  beach-small.jpg\n  copy.jpg\n"
    )
    (group,) = json.loads(printed("duplicates", job["id"], "--json"))
    assert group["count"] == 3
    assert main(["similar", job["id"], "beach"]) == 1
    assert "beach: no picture of" in capsys.readouterr().err


def test_the_report_has_the_largest_groups_with_their_thumbnails(
    client: httpx2.Client, job: dict[str, Any]
) -> None:
    report = client.get(f"/jobs/{job['id']}/report").raise_for_status().text
    part = report.partition("Nearly the same pictures")[2].partition("<section>")[0]
    assert "1 group among 4 pictures; with one of each, 2 pictures could be left out" in part
    assert "3 pictures</h3>" in part
    assert part.count("data:image/webp;base64,") == 3
    assert part.index("beach.jpg") < part.index("beach-small.jpg") < part.index("copy.jpg")
    # The first report of a job lets a worker compare its pictures, and waits a little.
    fresh = submit(client, keep_features=True)
    report = client.get(f"/jobs/{fresh['id']}/report").raise_for_status().text
    assert "1 group among 4 pictures" in report or "The pictures are being compared" in report
    assert "Nearly the same" not in client.get(f"/jobs/{submit(client)['id']}/report").text


def test_the_page_shows_similar_pictures_beside_a_large_one(
    page: Page, stack: Stack, job: dict[str, Any]
) -> None:
    page.open(f"{stack.url}/#{job['id']}")
    page.wait("results", lambda: len(page.all("#rows li")) == len(NAMES))
    page.click("#rows button")
    page.wait("dialog", page.one("#picture").is_displayed)
    assert page.one("#picture-title").text == "beach.jpg"
    page.one(".similar summary").send_keys(Keys.ENTER)
    page.wait("similar pictures", lambda: len(page.all(".similar li img")) == 3)
    names = [one.text for one in page.all(".similar .name")]
    assert names == ["copy.jpg", "beach-small.jpg", "other.jpg"]
    assert page.one(".similar .caption").text == "1.00"
    page.wait("thumbnails", lambda: all(map(is_shown, page.all(".similar img"))))
    assert page.violations() == []
    page.all(".similar button")[1].send_keys(Keys.ENTER)
    page.wait_for_text("#picture-title", "beach-small.jpg")
    # Of the same file, only the first picture is listed.
    page.wait("its own", lambda: len(page.all(".similar li")) == 2)
    page.one("#picture").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.wait_for_text("#picture-title", "broken.jpg")
    assert page.all(".similar") == [], "it has no features"
    assert page.messages() == []


def is_shown(picture: WebElement) -> bool:
    return int(str(picture.get_property("naturalWidth"))) > 0
