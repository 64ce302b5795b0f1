"""piqueue review: the least certain pictures of a finished job are added to the table of labels."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from aiohttp import web
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from piqueue import Client, Item, Job
from scripts.commands.__main__ import main
from scripts.local.stack import Stack
from scripts.workshop.labelling.predictions_source import read_predictions
from tests.pictures import jpeg
from tests.scripts.workshop.labelling.labelling import LabelPage, labelling
from tests.worker.fetching.site import Answer, Site

COUNT = 6


@pytest.fixture
def site() -> Iterator[Site]:
    """Serve /0.jpg to /5.jpg; /changing.jpg is a different picture each time."""
    asked = 100

    def picture(seed: int) -> Answer:
        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=jpeg(seed))

        return answer

    async def changing(_request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(body=jpeg(asked))

    pages = {f"/{seed}.jpg": picture(seed) for seed in range(COUNT)}
    with Site({**pages, "/changing.jpg": changing}) as running:
        yield running


@pytest.fixture
def api(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the API that the commands call."""
    monkeypatch.setenv("PIQUEUE_URL", stack.url)
    monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "127.0.0.1/32")
    with Client(stack.url) as client:
        yield client


def by_url(api: Client, site: Site, *more: str) -> Job:
    """A job whose rows have names, except for one row and those of the URLs `more`."""
    items = [
        Item(url=site.url(f"/{at}.jpg"), columns={"name": f"row{at}.jpg"}) for at in range(COUNT)
    ]
    unnamed = ("/0.jpg?nameless", "/a-web-page", *more)
    items += [Item(url=site.url(path)) for path in unnamed]
    return api.wait(api.submit_items(items).id, 60)


def least_certain(api: Client, job: Job) -> list[str]:
    """The names of the rows, by a margin that is calculated independently."""
    (thresholds,) = [card.thresholds for card in api.models() if card.sha256 == job.model.sha256]
    margins = {
        result.columns["name"]: min(
            abs(score - thresholds[label]) for label, score in result.scores.items()
        )
        for result in api.results(job.id)
        if result.scores and result.columns
    }
    return sorted(margins, key=lambda name: margins[name])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_least_certain_pictures_are_labelled_into_the_table_for_training(
    browser: Chrome, api: Client, site: Site, tmp_path: Path
) -> None:
    job = by_url(api, site)
    order = least_certain(api, job)
    table = tmp_path / "labels.csv"
    table.write_text(f"name,beach,city,sunset,trees,split\n{order[0]},0,0,0,1,val\n")
    folder = tmp_path / "images"
    page = LabelPage(browser)
    where = ("--out", table, "--folder", folder)
    with labelling("review", job.id, *where, "--count", "4") as (url, process):
        page.browser.get(url)
        page.wait("picture", lambda: page.one("#chip").text.startswith("suggested"))
        labelled = []
        for number in range(1, 3):
            page.wait("place", lambda: page.one("#place").text == f"{number} of 4")  # noqa: B023
            labelled.append(page.one("#name").text)
            page.press(Keys.ENTER)
        page.wait("two answers", lambda: page.one("#progress-text").text == "2 labelled")
        page.finish()
        assert process.wait(30) == 0
    rows = rows_of(table)
    assert rows[0]["name"] == order[0]
    assert rows[0]["split"] == "val"
    assert [row["name"] for row in rows[1:]] == labelled
    assert [row["split"] for row in rows[1:]] == ["train", "train"]
    named = [name for name in labelled if name.startswith("row")]
    assert named == order[1 : 1 + len(named)]
    for name in named:
        assert (folder / name).read_bytes() == jpeg(int(name[3]))
    results = {(result.columns or {}).get("name"): result for result in api.results(job.id)}
    for row in rows[1:]:
        if row["name"] in named:
            kept = [label for label in ("beach", "city", "sunset", "trees") if row[label] == "1"]
            assert kept == results[row["name"]].labels


def test_pictures_without_a_name_get_one_and_changed_pictures_are_left_out(
    browser: Chrome, api: Client, site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = by_url(api, site, "/changing.jpg")
    page = LabelPage(browser)
    with labelling("review", job.id, "--folder", tmp_path / "f") as (url, process):
        page.browser.get(url)
        page.wait("pictures", lambda: page.one("#place").text == f"1 of {COUNT + 1}")
        page.finish()
        assert process.wait(30) == 0
    names = sorted(path.name for path in (tmp_path / "f").iterdir())
    hashed = [name for name in names if re.fullmatch(r"[0-9a-f]{32}\.jpeg", name)]
    assert len(hashed) == 2  # the changed one was written, but is not shown
    assert jpeg(0) in {(tmp_path / "f" / name).read_bytes() for name in hashed}
    assert "differs from the picture that was scored" in capfd.readouterr().err


def test_uploads_are_found_in_their_original_folder(
    browser: Chrome, api: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    (photos / "a.jpg").write_bytes(jpeg(1))
    (photos / "sub" / "b.jpg").write_bytes(jpeg(2))
    files = {"a.jpg": photos / "a.jpg", "sub/b.jpg": photos / "sub" / "b.jpg"}
    job = api.wait(api.submit_files(files).id, 60)

    assert main(["review", job.id, "--folder", str(tmp_path / "empty"), "--no-browser"]) == 1
    printed = capsys.readouterr().err
    assert "2 of 2 pictures were uploaded or are in S3" in printed
    assert "with --folder FOLDER" in printed
    assert "downloaded" not in printed

    page = LabelPage(browser)
    with labelling("review", job.id, "--folder", photos) as (url, process):
        page.browser.get(url)
        page.wait("pictures", lambda: page.one("#place").text == "1 of 2")
        assert page.one("#name").text in files
        page.press("s", Keys.ENTER)
        page.wait("answers", lambda: page.one("#progress-text").text == "1 labelled, 1 left out")
        page.finish()
        assert process.wait(30) == 0
    assert sorted(row["left_out"] for row in rows_of(photos / "labels.csv")) == ["", "yes"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predictions_are_read_from_the_results_of_a_job(
    api: Client, site: Site, tmp_path: Path, form: Literal["csv", "jsonl"]
) -> None:
    """The submitted table has a column for a label, like the tables of piqueue collect."""
    table = f"name,beach,url\na.jpg,1,{site.url('/1.jpg')}\nb.jpg,0,{site.url('/2.jpg')}\n"
    job = api.wait(api.submit_csv(lambda: [table.encode()]).id, 60)
    results = tmp_path / f"results.{form}"
    with results.open("w+b") as file:
        api.download(job.id, file, form)
    predictions = read_predictions(results, {"a.jpg", "b.jpg"})
    wanted = {result.columns["name"]: result for result in api.results(job.id) if result.columns}
    assert predictions.keys() == wanted.keys()
    for name, result in wanted.items():
        assert predictions[name].scores == result.scores
        assert predictions[name].labels == set(result.labels or ())


def test_an_unfinished_job_and_one_without_scored_pictures_are_reported(
    api: Client, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = api.open_draft()
    assert main(["review", draft.id, "--folder", str(tmp_path)]) == 1
    assert f"{draft.id} is draft: finish it with" in capsys.readouterr().err
    failed = api.wait(api.submit_urls([site.url("/a-web-page")]).id, 60)
    assert main(["review", failed.id, "--folder", str(tmp_path)]) == 1
    told = f"{failed.id} has no scored pictures: read why with piqueue results {failed.id}"
    assert told in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text("name,beach,city,sunset,trees\na.jpg,1,0,0,0\n")
    known = api.wait(api.submit_items([Item(url=site.url("/0.jpg"), id="a.jpg")]).id, 60)
    assert main(["review", known.id, "--folder", str(tmp_path)]) == 1
    assert "all scored pictures of" in capsys.readouterr().err
