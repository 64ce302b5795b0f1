"""The guides of the documentation: each of their blocks, run in order on a running Piqueue."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from scripts.local.serve import SAMPLES
from scripts.local.stack import Stack
from tests.documents import Shell, runnable
from tests.pictures import jpeg
from tests.worker.fetching.site import Site


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> Shell:
    """Give a shell whose commands reach the stack."""
    return Shell(tmp_path, {"PIQUEUE_URL": stack.url, "BROWSER": "true"})


@pytest.fixture
def pictures() -> Iterator[Site]:
    """Serve two pictures, and one that is gone."""

    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(1))

    async def gone(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    with Site({"/beach.jpg": picture, "/park.jpg": picture, "/gone.jpg": gone}) as site:
        yield site


@pytest.mark.timeout(600)
def test_a_million_pictures(shell: Shell, pictures: Site, tmp_path: Path) -> None:
    table, *commands = runnable("docs/million.md")
    rows = table.text.replace("https://example.com", pictures.url(""))
    (tmp_path / "catalogue.csv").write_text(rows)
    shell.run("\n".join(block.text for block in commands))
    complete = (tmp_path / "complete.csv").read_text().splitlines()
    assert len(complete) == len(rows.splitlines())
    assert sum("fetch_http_status" in row for row in complete) == 1


@pytest.mark.timeout(600)
def test_schedules(shell: Shell, pictures: Site, tmp_path: Path) -> None:
    nightly, crontab = runnable("docs/schedules.md")
    table = f"url\n{pictures.url('/beach.jpg')}\n"
    today = shell.run("date +%F").strip()
    (tmp_path / f"{today}.csv").write_text(table)
    said = [shell.run(nightly) for _ in range(2)]
    assert said == ["0 pictures failed\n"] * 2
    assert len(pictures.requests) == 1, "one job"

    *_, command = crontab.text.split(maxsplit=5)
    (tmp_path / f"{today}.parquet").unlink()
    # cron gives the shell % for \\%.
    shell.run(command.replace("\\%", "%").replace("/srv/photos", shlex.quote(str(tmp_path))))
    assert (tmp_path / f"{today}.parquet").read_bytes().startswith(b"PAR1")


@pytest.mark.timeout(600)
def test_analysis(shell: Shell, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "photos", ignore=shutil.ignore_patterns("*.csv", "*.md"))
    commands, with_pandas, with_duckdb = runnable("docs/analysis.md")
    shell.run(commands)
    assert "succeeded" in shell.run(with_pandas)
    assert "succeeded" in shell.run(with_duckdb)
    assert "beach.jpg" in (tmp_path / "beaches.csv").read_text()
