"""docs/workshop.md, block by block: from keywords to a job that the trained model scores."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from scripts.local.stack import ROOT, Stack
from tests.conftest import STACK_ENV
from tests.scripts.workshop.collecting.unsplash_site import KEY, Shot, UnsplashSite
from tests.scripts.workshop.labelling.labelling import LabelPage, served

TEXT = (ROOT / "docs" / "workshop.md").read_text()
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


class Shell:
    """Runs blocks of the document in `folder`."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = {**os.environ, **env, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self._env["PYTHONPATH"] = str(ROOT)
        (folder / "bin").mkdir()
        for name, arguments in (("piqueue", "-m piqueue.cli"), ("python", "")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            program.chmod(0o755)

    def run(self, block: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", block]
        answer = subprocess.run(
            command, cwd=self._folder, env=self._env, capture_output=True, text=True, timeout=300
        )
        assert answer.returncode == 0, f"{block}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    @contextmanager
    def page(self, block: str, browser: Chrome) -> Iterator[LabelPage]:
        """Run a block that ends with a labelling page, and finish that."""
        command = ["bash", "-euc", f"exec {block.strip()} --no-browser"]
        with served(command, self._folder, self._env) as (url, process):
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
    blocks = re.findall(r"```(sh|yaml)\n(.*?)```", TEXT, re.DOTALL)
    configs = dict(
        re.findall(r"# (\S+)\n(.*)", block, re.DOTALL)[0]
        for kind, block in blocks
        if kind == "yaml"
    )
    collect, label, split, train, ship, review = [block for kind, block in blocks if kind == "sh"]
    registry = tmp_path / "registry"
    stack = Stack(tmp_path / "stack", env={**STACK_ENV, "PIQUEUE_REGISTRY_URL": str(registry)})
    with UnsplashSite({kind: shots(kind) for kind in COLOURS}) as unsplash, stack:
        shell = Shell(
            tmp_path,
            {
                "PIQUEUE_URL": stack.url,
                "PIQUEUE_UNSPLASH_URL": unsplash.url(""),
                "PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32",
            },
        )
        shell.run(collect.replace("your-access-key", KEY).replace("300", str(COUNT)))
        rows = rows_of(tmp_path / "labels.csv")
        assert len(rows) == 3 * COUNT
        assert len(unsplash.reported) == 3 * COUNT
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
        configs["data.yaml"] += "input_shape: [64, 64, 3]\nresize_shape: [64, 64]\n"
        for name, text in configs.items():
            (tmp_path / name).write_text(text)
        shell.run(train.replace("laptop", "smoke --base_weights none"))
        figures = json.loads((tmp_path / "evaluation.json").read_text())
        assert "beach" in json.dumps(figures)
        assert (tmp_path / "evaluation.html").stat().st_size > 10_000

        with (tmp_path / "new.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["name", "url"])
            new = {f"new-{kind}.jpg": unsplash.url(f"/images/{kind}1") for kind in COLOURS}
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
            "sha256": card["files"]["litert"]["sha256"],
        }

        with shell.page(review.replace("job_01…", job_id), browser) as page:
            for done in range(1, 4):
                page.press("1", Keys.ENTER)
                page.wait("answer", lambda: f"{done} labelled" in page.one("#progress-text").text)  # noqa: B023
    rows = rows_of(tmp_path / "labels.csv")
    assert len(rows) == 3 * COUNT + 3
    assert {rows[name]["split"] for name in new} == {"train"}
    assert (tmp_path / "images" / "new-city.jpg").read_bytes() == picture("city", ord("c") + 1)
