"""docs/using.md: each of its blocks, run in their order on a running Piqueue."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from scripts.local.stack import ROOT, Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Site

TEXT = (ROOT / "docs" / "using.md").read_text()


@pytest.fixture
def keyed_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack of our own, for the document makes a key."""
    with Stack(tmp_path_factory.mktemp("using"), env=STACK_ENV) as running:
        yield running


@pytest.mark.timeout(400)
def test_what_the_document_shows_works(keyed_stack: Stack, tmp_path: Path) -> None:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(1))

    with Site({"/beach.jpg": picture, "/park.jpg": picture}) as site:

        def here(text: str) -> str:
            """The text with the addresses of this test."""
            text = text.replace("http://localhost:8000", keyed_stack.url)
            return text.replace("https://example.com", site.url(""))

        blocks = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
        assert [language for language, _ in blocks] == ["csv", *["sh"] * 5, "python"]
        write_files(tmp_path, here(blocks[0][1]))
        env = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PIQUEUE_URL": keyed_stack.url,
            "PIQUEUE_REDIS_URL": keyed_stack.redis_url,
        }
        for language, block in blocks[1:]:
            shell = ["bash", "-euo", "pipefail", "-c"]
            command = (
                [*shell, here(block)] if language == "sh" else [sys.executable, "-c", here(block)]
            )
            answer = subprocess.run(
                command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
            )
            assert answer.returncode == 0, f"{block}\n{answer.stderr}"
        assert "a-2" in answer.stdout
    first = (tmp_path / "results.csv").read_text().splitlines()
    assert first[0].startswith("sku,url,price,status,")
    assert len(first) == 3


def write_files(folder: Path, table: str) -> None:
    """What the document speaks of, and a `piqueue` command."""
    (folder / "photos.csv").write_text(table)
    urls = [line.split(",")[1] for line in table.splitlines()[1:]]
    (folder / "urls.txt").write_text("\n".join(urls))
    (folder / "items.ndjson").write_text(f'{{"url": "{urls[0]}", "id": "é"}}\n')
    packed = f"image;größe\n{urls[0]};1\n".encode("latin-1")
    (folder / "export.csv.gz").write_bytes(gzip.compress(packed))
    (folder / "holiday").mkdir()
    for name in ("beach.jpg", "park.jpg", "holiday/1.jpg"):
        (folder / name).write_bytes(jpeg(1))
    (folder / "bin").mkdir()
    command = folder / "bin" / "piqueue"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m piqueue.cli "$@"\n')
    command.chmod(0o755)
