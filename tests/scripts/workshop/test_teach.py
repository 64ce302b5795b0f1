"""piqueue teach: docs/teach.md block by block, and what it refuses."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from model.artifact.card import load_card
from scripts.commands.__main__ import main
from scripts.local.stack import ROOT, Stack
from tests.conftest import STACK_ENV
from tests.documents import Shell, runnable
from tests.scripts.workshop.labelling.labelling import LabelPage, served
from tests.worker.fetching.site import Answer, Site
from worker.jobs.settings import ARTIFACTS_PATH

COUNT = 36
Capture = pytest.CaptureFixture[str]


def picture(index: int) -> bytes:
    """Stripes, upright for every third picture, in random colours and with noise."""
    random = np.random.default_rng(index)
    pixels = np.zeros((120, 160, 3))
    period = 8 + int(random.integers(8))
    stripes = (
        np.arange(160) // period % 2 if index % 3 == 0 else np.arange(120)[:, None] // period % 2
    )
    low, high = random.integers(0, 100, 3), random.integers(150, 256, 3)
    pixels[:] = low + np.broadcast_to(stripes, (120, 160))[..., None] * (high - low)
    pixels += random.normal(0, 12, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_labels(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "harbours"), *rows])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder of pictures, of which most are labelled, and a running Piqueue."""
    folder = tmp_path_factory.mktemp("teach")
    (folder / "photos").mkdir()
    for index in range(COUNT):
        (folder / "photos" / f"{index:02}.jpg").write_bytes(picture(index))
    rows = [(f"{index:02}.jpg", str(int(index % 3 == 0))) for index in range(30)]
    write_labels(folder / "labels.csv", [*rows, ("other.jpg", "0")])
    registry = folder / "registry"
    env = {**STACK_ENV, "PIQUEUE_REGISTRY_URL": str(registry)}
    with Stack(folder / "stack", env=env) as stack:
        yield Shell(folder, {"PIQUEUE_URL": stack.url, "PIQUEUE_REGISTRY_URL": str(registry)})


@pytest.fixture(scope="module")
def walked(shell: Shell) -> str:
    """What the commands of the document print."""
    commands, alike, python = runnable("docs/teach.md")
    # The later commands are about the job of the first ones.
    printed = shell.run(f"{commands.text}\n{alike.text}")
    assert " is most like " in shell.run(python)
    return printed


def test_a_label_is_taught_and_scored_beside_others(shell: Shell, walked: str) -> None:
    assert "taught on 30 pictures" in walked
    assert "added harbours@1, on the backbone of scenes@5" in walked
    job = walked.partition("to score ")[2].split()[0]
    assert f"to score {job} with it: piqueue rescore {job} --model harbours@1" in walked
    listed = walked.partition("label these next:\n")[2].split("\n\n")[0].splitlines()
    assert set(listed) == {f"{index:02}.jpg" for index in range(30, COUNT)}
    with (shell.folder / "both.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert len(rows) == COUNT
    for index in range(COUNT):
        row = rows[f"{index:02}.jpg"]
        assert ("harbours/harbours" in row["labels"].split(";")) == (index % 3 == 0), row
        assert row["scenes/beach"]


def test_pictures_that_are_alike_are_listed(walked: str) -> None:
    similar = re.findall(r"^0\.\d{3}  (\d\d)\.jpg$", walked, re.MULTILINE)
    assert len(similar) == 5
    assert all(int(index) % 3 == 0 for index in similar), "those with upright stripes"


def test_the_card_says_how_sure_it_is(shell: Shell, walked: str) -> None:
    folder = shell.folder / "registry" / "harbours" / "1"
    card = json.loads((folder / "card.json").read_text())
    assert card["labels"] == ["harbours"]
    figures = card["metrics"]["out_of_fold"]
    low, high = card["metrics"]["intervals_95"]["out_of_fold"]["macro_average_precision"]
    assert 0.8 < low <= figures["macro_average_precision"] <= high <= 1
    assert f"average precision {figures['average_precision_harbours']:.3f}" in walked
    assert card["training"]["backbone_of"] == "scenes@5"
    assert card["training"]["pictures"] == {"train": 30}
    assert card["training"]["features"] == {"float": 30}
    base = load_card(ARTIFACTS_PATH / "scenes" / "5")
    int8 = card["variants"]["int8"]
    assert (int8["sha256"], int8["calibration"]) == (
        base.variants["int8"].sha256,
        card["calibration"],
    )
    assert (folder / int8["path"]).is_file()
    assert sum(card["score_counts"]["harbours"]) == 30
    with httpx2.Client(base_url=shell.env["PIQUEUE_URL"]) as client:
        models = {one["name"]: one for one in client.get("/models").json()}
    assert models["harbours"]["backbone"] == models["scenes"]["backbone"] is not None


def test_the_label_page_ends_in_a_taught_model(shell: Shell, walked: str, browser: Chrome) -> None:
    job = walked.partition("to score ")[2].split()[0]
    page = LabelPage(browser)
    command = [sys.executable, "-m", "piqueue", "label", "photos", "--csv", "labels.csv"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **shell.env}
    with served([*command, "--from", job, "--no-browser"], shell.folder, env) as (url, process):
        page.open(url, "30.jpg")
        for _ in range(2):
            page.press("1", Keys.ENTER)
        page.shows("32.jpg", "open")
        assert page.violations() == []
        page.one("#teach-button").click()
        page.one("#teach-name").send_keys("berths", Keys.ENTER)
        page.wait("model", lambda: "added berths@1" in page.one("#teach-text").text)
        assert "taught on 32 pictures" in page.one("#teach-text").text
        with page.width(360):
            wide = "const text = arguments[0]; return text.scrollWidth > text.clientWidth"
            assert not browser.execute_script(wide, page.one("#teach-text"))
            buttons = [one.rect["y"] for one in page.all("header button")]
            assert (page.fits(), len(set(buttons))) == (True, 1)
        assert page.violations() == []
        refused = httpx2.post(f"{url}teach", json={"name": "--from"})
        assert refused.status_code == 422
        page.one("#teach-close").click()
        page.finish()
        assert process.wait(30) == 0
    # Without the labels of one side, it says what to label.
    write_labels(shell.folder / "few.csv", [(f"{index:02}.jpg", "1") for index in range(36)])
    command[-1] = "few.csv"
    with served([*command, "--from", job, "--no-browser"], shell.folder, env) as (url, _):
        page.open(url, "00.jpg")
        page.press(Keys.ENTER)
        page.one("#teach-button").click()
        page.one("#teach-name").send_keys("berths", Keys.ENTER)
        page.wait("refusal", lambda: page.all("#teach-text.bad"))
        assert "label some more" in page.one("#teach-text").text
    assert page.messages() == []


def job_of(shell: Shell, *options: str) -> str:
    text = " ".join(("piqueue submit photos --no-wait", *options))
    job = shell.run(f"{text} | tee job.txt && piqueue submit --resume $(cat job.txt)")
    return job.split()[0]


def test_the_next_version_is_not_current_until_it_is_promoted(shell: Shell, walked: str) -> None:
    job = job_of(shell, "--keep-features", "--model", "imagenet", "--model", "scenes")
    with (shell.folder / "wrong.csv").open("w", newline="") as file:
        rows = [(f"{index:02}.jpg", int((index % 3 == 0) != (index == 7))) for index in range(30)]
        csv.writer(file).writerows([("name", "upright"), *rows])
    told = shell.run(f"piqueue teach harbours wrong.csv --from {job} --next 2")
    assert "added harbours@2, on the backbone of scenes@5" in told
    assert "to use it for new jobs: piqueue models promote harbours 2" in told
    assert "row 9 (07.jpg) has upright, with a score of " in told
    assert len(told.partition("label these next:\n")[2].split("\n\n")[0].splitlines()) == 2


def test_pictures_of_a_table_are_named_by_any_of_its_columns(shell: Shell, walked: str) -> None:
    def answering(index: int) -> Answer:
        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=picture(index))

        return answer

    with (
        Site({f"/{index}.jpg": answering(index) for index in range(13)}) as site,
        (shell.folder / "products.csv").open("w", newline="") as file,
    ):
        rows = [(f"sku-{at}", site.url(f"/{at}.jpg"), 4000 + at) for at in range(13)]
        csv.writer(file).writerows([("sku", "picture", "number"), *rows])
        file.flush()
        table = "products.csv --url-column picture --id-column sku --keep-features"
        job = shell.run(f"piqueue submit {table} --no-wait").split()[0]
        shell.run(f"piqueue submit --resume {job}")
    labels = [(f"sku-{index}", str(int(index % 3 == 0))) for index in range(6)]
    labels += [(f"{index}.jpg", str(int(index % 3 == 0))) for index in range(6, 9)]
    labels += [(f"{4000 + index}", str(int(index % 3 == 0))) for index in range(9, 12)]
    labels += [("sku-99", "0")]
    write_labels(shell.folder / "skus.csv", labels)
    told = shell.run(f"piqueue teach skus skus.csv --from {job} 2>&1")
    assert f"skus.csv: not used, because {job} has no features of a picture of that name" in told
    assert "of that name: row 14 (sku-99)\n" in told
    assert "taught on 12 pictures" in told
    assert "label these next:\nsku-12\n" in told


def test_what_cannot_be_taught_is_refused(
    shell: Shell, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PIQUEUE_URL", "PIQUEUE_REGISTRY_URL"):
        monkeypatch.setenv(name, shell.env[name])
    kept, plain = job_of(shell, "--keep-features"), job_of(shell)
    imagenet = job_of(shell, "--model", "imagenet")
    (shell.folder / "cut").mkdir()
    (shell.folder / "cut" / "00.jpg").write_bytes(picture(0)[:500])
    shell.run("piqueue submit cut --keep-features --no-wait > cut.txt")
    shell.run("piqueue submit --resume $(cat cut.txt) || true")
    cut = (shell.folder / "cut.txt").read_text().strip()
    tables = {
        "few.csv": [("00.jpg", "1"), ("01.jpg", "0"), ("02.jpg", "0"), ("04.jpg", "0")],
        "other.csv": [("a.jpg", "1"), ("b.jpg", "0")],
    }
    for name, rows in tables.items():
        write_labels(tmp_path / name, rows)
    (tmp_path / "one.csv").write_text("name,label\n00.jpg,upright\n01.jpg,upright\n")
    (tmp_path / "blank.csv").write_text("name,label\n00.jpg,\n01.jpg,\n")
    (tmp_path / "none.csv").write_text("name,price\n00.jpg,12\n")

    def refused(name: str, table: str, job: str) -> str:
        assert main(["teach", name, str(tmp_path / table), "--from", job]) == 1
        return capsys.readouterr().err

    assert "harbours: 1 pictures with it, and at least 2" in refused("few", "few.csv", kept)
    assert "a.jpg and all other names are no pictures" in refused("other", "other.csv", kept)
    assert f"{cut} has features of none of its pictures" in refused("cut", "few.csv", cut)
    assert "none.csv has no labels" in refused("none", "none.csv", kept)
    assert "one.csv has only 'upright' in its column label" in refused("one", "one.csv", kept)
    assert "blank.csv has no labels in its column label" in refused("one", "blank.csv", kept)
    assert "without keep_features" in refused("plain", "few.csv", plain)
    assert "which gives no features" in refused("imagenet", "few.csv", imagenet)
    assert "few.csv" not in refused("few", "few.csv", "job_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with pytest.raises(SystemExit) as wrong:
        main(["teach", "few", "few.csv", "--from", kept, "--next", "-1"])
    assert wrong.value.code == 64
    assert "'-1': give a whole number from 0" in capsys.readouterr().err
