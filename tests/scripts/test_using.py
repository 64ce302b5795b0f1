"""docs/using.md: each of its blocks, run in their order on a running Piqueue."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from scripts.local.stack import Stack
from tests.conftest import STACK_ENV
from tests.documents import Block, Shell, runnable
from tests.pictures import jpeg
from tests.worker.fetching.site import Site


@pytest.fixture
def keyed_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack of our own, for the document makes a key."""
    with Stack(tmp_path_factory.mktemp("using"), env=STACK_ENV) as running:
        yield running


@pytest.mark.timeout(600)
def test_what_the_document_shows_works(keyed_stack: Stack, tmp_path: Path) -> None:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(1))

    with Site({"/beach.jpg": picture, "/park.jpg": picture}) as site:

        def here(block: Block) -> Block:
            """The block with the addresses of this test."""
            text = block.text.replace("http://localhost:8000", keyed_stack.url)
            return Block(block.language, text.replace("https://example.com", site.url("")))

        table, *commands = map(here, runnable("docs/using.md"))
        assert [block.language for block in commands] == [*["sh"] * 7, "python"]
        env = {"PIQUEUE_URL": keyed_stack.url, "PIQUEUE_REDIS_URL": keyed_stack.redis_url}
        env["BROWSER"] = "true"  # a browser that shows nothing
        shell = Shell(tmp_path, env)
        write_files(tmp_path, table.text)
        for block in commands:
            printed = shell.run(block)
        assert "a-2" in printed
    first = (tmp_path / "results.csv").read_text().splitlines()
    assert first[0].startswith("sku,url,price,status,")
    assert len(first) == 3


def write_files(folder: Path, table: str) -> None:
    """What the document speaks of."""
    (folder / "photos.csv").write_text(table)
    urls = [line.split(",")[1] for line in table.splitlines()[1:]]
    (folder / "urls.txt").write_text("\n".join(urls))
    (folder / "items.ndjson").write_text(f'{{"url": "{urls[0]}", "id": "é"}}\n')
    packed = f"image;größe\n{urls[0]};1\n".encode("latin-1")
    (folder / "export.csv.gz").write_bytes(gzip.compress(packed))
    (folder / "holiday").mkdir()
    for name in ("beach.jpg", "park.jpg", "holiday/1.jpg"):
        (folder / name).write_bytes(jpeg(1))
