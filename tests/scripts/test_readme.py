"""The commands of README and of the short pages, run in their order on a running Piqueue."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from aiohttp import web

from model.artifact.card import load_card
from model.training.config import DataConfig, TrainingConfig
from scripts.local.stack import ROOT, Stack
from tests.api.polling import wait_done
from tests.documents import Block, Shell, runnable
from tests.pictures import jpeg
from tests.worker.fetching.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(1))

    with Site({"/beach.jpg": picture, "/park.jpg": picture}) as running:
        yield running


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> Shell:
    for name in ("beach.jpg", "park.jpg"):
        (tmp_path / name).write_bytes(jpeg(1))
    return Shell(tmp_path, {"PIQUEUE_URL": stack.url})


def test_the_commands_that_submit_jobs_work(
    shell: Shell, stack: Stack, site: Site, client: httpx2.Client
) -> None:
    def here(block: Block) -> Block:
        """The block with the addresses of this test."""
        text = re.sub(r"(http://)?(localhost|127\.0\.0\.1):8000", stack.url, block.text)
        return Block(block.language, text.replace("https://example.com", site.url("")))

    # The others start Piqueue with Docker, and train a model.
    curl, submit, python, _, _ = map(here, runnable("README.md"))
    posts, status, results, one = re.split(r"\n(?=curl \S*/jobs/|curl '|curl -F file=)", curl.text)
    [*_, job_id] = re.findall(r'"id": ?"(job_\w+)"', shell.run(posts))
    job = wait_done(client, client.get(f"/jobs/{job_id}").json())
    assert job["counts"]["succeeded"] == 1
    assert '"done"' in shell.run(status.replace("job_01…", job_id))
    assert "beach.jpg" in shell.run(results.replace("job_01…", job_id))
    assert "sunset" in shell.run(one)

    table = f"url\n{site.url('/beach.jpg')}\n"
    (shell.folder / "photos.csv").write_text(table)
    python_of_client, submit_of_client = map(here, runnable("piqueue/README.md"))
    for block in (submit, submit_of_client):
        shell.run(block)
        assert "beach.jpg" in (shell.folder / "results.csv").read_text()
        (shell.folder / "results.csv").unlink()
    for block in (python, python_of_client):
        assert "sunset" in shell.run(block)

    webhook, _ = map(here, runnable("docs/webhooks.md"))
    job_id = json.loads(shell.run(webhook))["id"]
    hook = client.get(f"/jobs/{job_id}/webhook").raise_for_status().json()
    assert hook["url"].startswith(site.url("/piqueue"))


LABELS = ("beach", "city", "sunset", "trees")


def tiny(block: Block) -> str:
    """A block that trains, with the paths of the clone, as fast as possible, without downloads."""
    text = block.text.replace("--preset laptop", "--preset smoke --base_weights none")
    text = text.replace("pip install", "pip install --dry-run --no-deps --no-build-isolation")
    for path in ("./piqueue", ".[train]", "constraints.txt"):
        assert path in text
        text = text.replace(
            path, f"{ROOT}[train]" if path[1] == "[" else shlex.quote(str(ROOT / path))
        )
    return text


def write_photos(folder: Path) -> None:
    """Pictures of all sets of labels in the table labels.csv, and some in folders of kinds."""
    rows = [",".join(("name", *LABELS, "split"))]
    for number in range(48):
        name = f"{number}.jpg"
        for path in (
            folder / "photos" / name,
            folder / "kinds" / ("cat", "dog")[number % 2] / name,
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(number, 256, 256))
        cells = [str(number >> label & 1) for label in range(len(LABELS))]
        rows.append(",".join((name, *cells, "val" if number < 16 else "train")))
    (folder / "labels.csv").write_text("\n".join(rows))


@pytest.mark.timeout(600)
def test_the_commands_that_train_work(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    write_photos(tmp_path)
    train, data, training, evaluate = runnable("docs/training.md")
    DataConfig.model_validate(yaml.safe_load(data.text))
    folder = {"model_path": tmp_path / "models/scenes/6"}
    TrainingConfig.model_validate(yaml.safe_load(training.text) | folder)
    shell.run(tiny(train))
    shell.run(evaluate)
    report = json.loads((tmp_path / "comparison.json").read_text())
    assert report["pictures"] == 16

    [*_, train] = runnable("README.md")
    assert "accuracy" in shell.run(tiny(train).replace("photos", "kinds"))
    card = load_card(tmp_path / "models/kinds/1")
    assert (card.labels, card.activation, card.sources) == (("cat", "dog"), "softmax", ())
