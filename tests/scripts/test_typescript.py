"""docs/typescript.md: a TypeScript client is generated, checked, and scores pictures."""

import shutil
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from scripts.local.stack import Stack
from tests.browser import NOT_TESTED
from tests.documents import Block, Shell, runnable
from tests.pictures import jpeg
from tests.worker.fetching.site import Site


def require_npm() -> None:
    """Skip the test where there is no Node, or where its registry cannot be reached."""
    reason = "without Node 20: install it from nodejs.org"
    if shutil.which("npm") and shutil.which("node"):
        ping = ["npm", "view", "@hey-api/openapi-ts@0.95.0", "version"]
        if subprocess.run(ping, capture_output=True, timeout=60).returncode == 0:
            return
        reason = "because npm cannot reach its registry"
    pytest.skip(f"{NOT_TESTED}: the generated TypeScript client, {reason}")


@pytest.mark.timeout(600)
def test_a_typescript_client_is_generated_checked_and_works(stack: Stack, tmp_path: Path) -> None:
    require_npm()

    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(1))

    async def gone(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    with Site({"/beach.jpg": picture, "/gone.jpg": gone}) as site:

        def here(block: Block) -> Block:
            """The block with the addresses of this test."""
            text = block.text.replace("http://localhost:8000", stack.url)
            return Block(block.language, text.replace("https://example.com", site.url("")))

        make, program, run = map(here, runnable("docs/typescript.md"))
        (tmp_path / "score.ts").write_text(program.text)
        shell = Shell(tmp_path)
        shell.run(make)
        first, second = shell.run(run).splitlines()
    assert "beach" in first
    assert second.startswith('1 {"code":"fetch_http_status"')
