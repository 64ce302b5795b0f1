"""piqueue download: the pictures of a table, from a real server, and the list of missing ones."""

import asyncio
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from scripts.commands.__main__ import main
from scripts.local.stack import ROOT
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from tests.worker.fetching.site import Answer, Site

HEADER = ["name", "beach", "city", "sunset", "trees", "url"]


def picture(seed: int) -> Answer:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(seed))

    return answer


async def gone(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)


async def cut(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=jpeg(1)[:3000])


async def hanging(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve /0.jpg to /9.jpg, and a missing, a truncated and a hanging picture."""
    monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "127.0.0.1/32")
    pages = {f"/{seed}.jpg": picture(seed) for seed in range(10)}
    with Site({**pages, "/gone": gone, "/cut": cut, "/hanging": hanging}) as running:
        yield running


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(HEADER)
        table.writerows([name, "1", "0", "0", "0", url] for name, url in rows)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_pictures_are_saved_by_name_and_the_missing_ones_are_listed_by_row(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(
        tmp_path / "data.csv",
        [
            ("a.jpg", site.url("/1.jpg?w=400&fit=max")),
            ("gone.jpg", site.url("/gone")),
            ("page.jpg", site.url("/a-web-page")),
            ("cut.jpg", site.url("/cut")),
            ("", site.url("/2.jpg")),
            ("../../outside.jpg", site.url("/2.jpg")),
            (".hidden.jpg", site.url("/2.jpg")),
            ("/absolute.jpg", site.url("/2.jpg")),
            ("a.jpg", site.url("/3.jpg")),
            ("no-url.jpg", "nonsense"),
            ("x" * 300, site.url("/3.jpg")),
            ("sub/b.jpg", site.url("/4.jpg")),
        ],
    )
    kept = tmp_path / "labels.csv"
    assert main(["download", str(table), "--kept", str(kept)]) == 2
    assert files_in(tmp_path / "images") == {"a.jpg": jpeg(1), "sub/b.jpg": jpeg(4)}
    assert not (tmp_path.parent / "outside.jpg").exists()
    report = {
        row["row"]: (row["name"], row["reason"]) for row in rows_of(tmp_path / "data.missing.csv")
    }
    assert report == {
        "3": ("gone.jpg", "fetch_http_status"),
        "4": ("page.jpg", "not_an_image"),
        "5": ("cut.jpg", "truncated"),
        "6": ("", "name"),
        "7": ("../../outside.jpg", "name"),
        "8": (".hidden.jpg", "name"),
        "9": ("/absolute.jpg", "name"),
        "10": ("a.jpg", "name"),
        "11": ("no-url.jpg", "fetch_blocked_address"),
        "12": ("x" * 300, "name"),
    }
    assert rows_of(tmp_path / "data.missing.csv")[0]["host"] == "127.0.0.1"
    assert [row["name"] for row in rows_of(kept)] == ["a.jpg", "sub/b.jpg"]
    assert "2 of 12 pictures are in" in capsys.readouterr().out


def test_complete_files_are_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    table = write(tmp_path / "data.csv", [(f"{at}.jpg", site.url(f"/{at}.jpg")) for at in range(3)])
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(jpeg(70))
    (folder / "1.jpg").write_bytes(jpeg(1)[:5000])
    assert main(["download", str(table), "--out", str(folder)]) == 0
    assert sorted(seen.target for seen in site.requests) == ["/1.jpg", "/2.jpg"]
    assert files_in(folder) == {"0.jpg": jpeg(70), "1.jpg": jpeg(1), "2.jpg": jpeg(2)}
    assert rows_of(tmp_path / "data.missing.csv") == []


def test_addresses_that_are_not_public_are_not_contacted(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIQUEUE_FETCH_ALLOW_NETWORKS")
    table = write(tmp_path / "data.csv", [("a.jpg", site.url("/1.jpg"))])
    assert main(["download", str(table)]) == 1
    (row,) = rows_of(tmp_path / "data.missing.csv")
    assert row["reason"] == "fetch_blocked_address"
    assert row["detail"].endswith("allow its network with PIQUEUE_FETCH_ALLOW_NETWORKS")
    assert site.requests == []


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("name,link\na.jpg,x\n", "has no column url, only name, link: rename or add one"),
        ("name,url\n", "has no rows"),
        ("name,url\na.jpg\n", "row 2: fewer cells than the header: add the missing cells"),
        ("name,url,\na.jpg,x,beach\n", "row 2: more cells than the header: name each column there"),
        ("name,url,url\na.jpg,x,y\n", "two columns of the same name"),
    ],
)
def test_an_invalid_table_is_rejected(
    text: str, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "data.csv"
    table.write_text(text)
    assert main(["download", str(table)]) == 1
    assert printed in capsys.readouterr().err


def test_ctrl_c_keeps_complete_files_and_leaves_no_partial_ones(site: Site, tmp_path: Path) -> None:
    table = write(
        tmp_path / "data.csv", [("a.jpg", site.url("/1.jpg")), ("b.jpg", site.url("/hanging"))]
    )
    command = [sys.executable, "-m", "piqueue", "download", str(table)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ,
        stderr=subprocess.PIPE,
        # A shell lets what it runs in the background ignore Ctrl-C, and the tests may run there.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert eventually((tmp_path / "images" / "a.jpg").exists, 60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors.decode()
    assert files_in(tmp_path / "images") == {"a.jpg": jpeg(1)}


def test_the_report_replaces_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.jpg").write_bytes(jpeg(0))
    table = write(tmp_path / "data.csv", [("0.jpg", "https://example.com/0.jpg")])
    kept = write(tmp_path / "labels.csv", [("0.jpg", "https://example.com/0.jpg")])
    link = tmp_path / "report.csv"
    link.symlink_to(kept)
    for report, replaced in ((table, table), (kept, kept), (link, kept)):
        before = replaced.read_bytes()
        assert main(["download", str(table), "--kept", str(kept), "--report", str(report)]) == 1
        assert f"would replace {replaced}: name another file" in capsys.readouterr().err
        assert replaced.read_bytes() == before
