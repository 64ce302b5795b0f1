"""docs/workshop.md, block by block: from keywords to a job that the trained model scores."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from scripts.local.stack import Stack
from tests import documents
from tests.conftest import STACK_ENV
from tests.documents import runnable
from tests.scripts.workshop.collecting.openverse_site import OpenverseSite
from tests.scripts.workshop.collecting.unsplash_site import Shot
from tests.scripts.workshop.labelling.labelling import LabelPage, served

COUNT = 12
COLOURS = {"beach": (220, 180, 70), "city": (40, 60, 190), "desk": (120, 120, 120)}
WRONG = "city5.jpg"  # shows a beach


def picture(kind: str, seed: int) -> bytes:
    """Noise around the colour of its kind."""
    noise = np.random.default_rng(seed).normal(COLOURS[kind], 40, (96, 128, 3))
    target = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(target, "JPEG")
    return target.getvalue()


def shots(kind: str) -> list[Shot]:
    wrong = WRONG.removesuffix(".jpg")
    names = [f"{kind}{number}" for number in range(COUNT)]
    return [
        Shot(name, picture("beach" if name == wrong else kind, seed))
        for seed, name in enumerate(names, start=ord(kind[0]))
    ]


class Shell(documents.Shell):
    """Also runs the blocks that open a labelling page."""

    @contextmanager
    def page(self, block: str, browser: Chrome) -> Iterator[LabelPage]:
        """Run a block that ends with a labelling page, and finish that."""
        command = ["bash", "-euc", f"exec {block.strip()} --no-browser"]
        with served(command, self.folder, self.env) as (url, process):
            page = LabelPage(browser)
            browser.get(url)
            page.wait("picture", lambda: page.one("#name").text != "…")
            yield page
            page.finish()
            assert process.wait(30) == 0


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.timeout(600)
def test_the_commands_of_the_document_lead_from_keywords_to_scores(
    browser: Chrome, tmp_path: Path
) -> None:
    blocks = [block.text for block in runnable("docs/workshop.md")]
    collect, label, split, train, ship, review = blocks
    registry = tmp_path / "registry"
    stack = Stack(tmp_path / "stack", env={**STACK_ENV, "PIQUEUE_REGISTRY_URL": str(registry)})
    with OpenverseSite({kind: shots(kind) for kind in COLOURS}) as openverse, stack:
        shell = Shell(
            tmp_path,
            {
                "PIQUEUE_URL": stack.url,
                "PIQUEUE_OPENVERSE_URL": openverse.url(""),
                "PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32",
            },
        )
        shell.run(collect.replace("300", str(COUNT)))
        rows = rows_of(tmp_path / "labels.csv")
        assert len(rows) == 3 * COUNT
        assert (rows[WRONG]["beach"], rows[WRONG]["city"]) == ("0", "1")
        assert (tmp_path / "images" / WRONG).read_bytes() == picture("beach", ord("c") + 5)

        with shell.page(label, browser) as page:
            while page.one("#name").text != WRONG:
                page.press(Keys.ARROW_RIGHT)
            page.press("1", "2")
            page.wait("both labels", lambda: page.pressed() == ["beach"])
            page.press(*[Keys.ENTER] * len(rows))
            page.wait("end", page.one("#done").is_displayed)
        rows = rows_of(tmp_path / "labels.csv")
        assert (rows[WRONG]["beach"], rows[WRONG]["city"]) == ("1", "0")
        assert rows[WRONG]["photographer"] == "Ann, who took city5"

        assert shell.run(split) == "labels.csv: 28 train, 8 val\n"
        # Small pictures, for the sake of time.
        size = "input_shape: [64, 64, 3]\nresize_shape: [64, 64]\n"
        (tmp_path / "size.yaml").write_text(size)
        options = "smoke --base_weights none --data_config_path size.yaml"
        shell.run(train.replace("laptop", options))
        figures = json.loads((tmp_path / "evaluation.json").read_text())
        assert "beach" in json.dumps(figures)
        assert (tmp_path / "evaluation.html").stat().st_size > 10_000

        with (tmp_path / "new.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["name", "url"])
            new = {f"new-{kind}.jpg": openverse.url(f"/images/{kind}1") for kind in COLOURS}
            table.writerows(new.items())
        printed = shell.run(ship)
        results = rows_of(tmp_path / "results.csv")
        assert list(results) == list(new)
        for row in results.values():
            assert row["status"] == "succeeded"
            assert 0 <= float(row["beach"]) <= 1
            assert 0 <= float(row["city"]) <= 1
        job_id = re.findall(r"job_\w+", printed)[-1]
        job = httpx2.get(f"{stack.url}/jobs/{job_id}").json()
        card = json.loads((tmp_path / "models" / "views" / "1" / "card.json").read_text())
        assert job["model"] == {
            "name": "views",
            "version": "1",
            "sha256": card["files"]["head"]["sha256"],
        }

        with shell.page(review.replace("job_01…", job_id), browser) as page:
            for done in range(1, 4):
                page.press("1", Keys.ENTER)
                page.wait("answer", lambda: f"{done} labelled" in page.one("#progress-text").text)  # noqa: B023
        # Each block once more.
        rows = rows_of(tmp_path / "labels.csv")
        shell.run(collect.replace("300", str(COUNT)))
        shell.run(split)
        assert "1 exists, and a version never changes" in shell.run(train, code=2)
        shell.run(ship)
        assert rows_of(tmp_path / "labels.csv") == rows
        assert json.loads((tmp_path / "models" / "views" / "1" / "card.json").read_text()) == card
    assert len(rows) == 3 * COUNT + 3
    assert {rows[name]["split"] for name in new} == {"train"}
    assert (tmp_path / "images" / "new-city.jpg").read_bytes() == picture("city", ord("c") + 1)
