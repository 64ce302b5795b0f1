"""piqueue submit and the commands beside it, as a person runs them, on a running Piqueue."""

import asyncio
import csv
import gzip
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import openpyxl
import pandas
import pyarrow.parquet
import pytest
from aiohttp import web

from piqueue import Client, Item, cli
from scripts.local.stack import ROOT, Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from tests.worker.fetching.site import Answer, Site

SLOW_S = 0.2


def picture(seed: int, after_s: float = 0) -> Answer:
    body = jpeg(seed)

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(after_s)
        return web.Response(body=body)

    return answer


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve /0.jpg to /9.jpg, and /slow.jpg."""
    pages = {f"/{seed}.jpg": picture(seed) for seed in range(10)}
    with Site({**pages, "/slow.jpg": picture(1, SLOW_S)}) as running:
        yield running


@pytest.fixture
def later() -> Iterator[str]:
    """Give the URL of a picture that is missing until its job is retried."""
    found = picture(3)
    asked = 0

    async def missing_once(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await found(request) if asked > 1 else web.Response(status=404)

    with Site({"/later.jpg": missing_once}) as running:
        yield running.url("/later.jpg")


@pytest.fixture(autouse=True)
def _address(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIQUEUE_URL", stack.url)


def piqueue(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "piqueue", *map(str, arguments)]


def run(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run piqueue in a process of its own."""
    return subprocess.run(
        piqueue(*arguments), input=given, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_several_models_score_the_same_pictures() -> None:
    beach = "scripts/samples/beach.jpg"
    told = run("submit", beach, "--model", "scenes", "--model", "imagenet")
    assert told.returncode == 0, told.stderr
    assert "scenes/beach" in told.stdout
    assert "imagenet/" in told.stdout


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def job_of(output: str) -> str:
    found = re.search(r"job_\w+", output)
    assert found, output
    return found[0]


def check_scores(row: Mapping[str, Any]) -> None:
    scores = [float(row[label]) for label in ("beach", "city", "sunset", "trees")]
    assert all(0 <= score <= 1 for score in scores)
    assert (row["status"], row["error_code"] or "") == ("succeeded", "")


def test_a_packed_table_in_another_encoding_gives_its_columns_back(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "export.csv.gz"
    text = "Artikel;Bild;Preis;leer\n"
    text += "".join(
        f'00{at};{site.url(f"/{at}.jpg")};"{at},50 €; für ""März""";NA\n' for at in range(5)
    )
    table.write_bytes(gzip.compress(text.encode("cp1252")))
    results = tmp_path / "results.csv"
    columns = ["--url-column", "Bild", "--id-column", "Artikel"]
    packed = ["submit", str(table), "--sep", ";", "--encoding", "cp1252"]
    assert cli.main([*packed, *columns, "-o", str(results)]) == 0
    assert "5 of 5 succeeded" in capsys.readouterr().out
    rows = rows_of(results)
    assert list(rows[0])[:5] == ["Artikel", "Bild", "Preis", "leer", "status"]
    assert [(row["Artikel"], row["Bild"], row["Preis"], row["leer"]) for row in rows] == [
        (f"00{at}", site.url(f"/{at}.jpg"), f'{at},50 €; für "März"', "NA") for at in range(5)
    ]
    for row in rows:
        check_scores(row)


def test_urls_on_standard_input_are_scored(site: Site, tmp_path: Path) -> None:
    urls = [site.url(f"/{at}.jpg") for at in range(3)]
    results = tmp_path / "results.jsonl"
    given = "\ufeff# three\n" + "\n\n".join(urls) + "\n"
    answer = run("submit", "-", "-o", results, given=given)
    assert answer.returncode == 0, answer.stderr
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(result["id"], result["source"]["url"]) for result in found] == [
        (str(at), url) for at, url in enumerate(urls)
    ]


def test_lists_and_ndjson_are_known_by_their_names(
    site: Site,
    stack: Stack,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text(f"{site.url('/1.jpg')}\n")
    items = tmp_path / "items.ndjson"
    items.write_text(json.dumps({"url": site.url("/2.jpg"), "id": "two"}))
    results = tmp_path / "results.parquet"
    assert cli.main(["submit", str(urls), "-o", str(results)]) == 0
    (row,) = pyarrow.parquet.read_table(results).to_pylist()
    assert row["url"] == site.url("/1.jpg")
    check_scores(row)
    assert cli.main(["submit", str(items), "-o", str(results), "--name", "second"]) == 0
    (row,) = pyarrow.parquet.read_table(results).to_pylist()
    assert (row["id"], row["url"]) == ("two", site.url("/2.jpg"))
    urls.write_text(f"{site.url('/1.jpg')}\n{site.url('/none')}\n")
    assert cli.main(["submit", str(urls)]) == 2
    *_, scored, failed, _ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"  0(  [a-z]+ [01]\.\d\d){3}", scored)
    assert failed == "  1  not_an_image: text, not a picture"
    assert cli.main(["jobs", "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("1 of 1 succeeded  second")
    check_json_bom_and_page(capsys, monkeypatch, stack, tmp_path)


def check_json_bom_and_page(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stack: Stack,
    tmp_path: Path,
) -> None:
    assert cli.main(["jobs", "--limit", "2", "--json"]) == 0
    _, job = json.loads(capsys.readouterr().out)
    assert (job["name"], job["status"], job["counts"]["succeeded"]) == ("second", "succeeded", 1)
    assert cli.main(["status", job["id"], "--json"]) == 0
    of_status = json.loads(capsys.readouterr().out)
    for command, said in (("status", "succeeded"), ("cancel", job["id"])):
        assert cli.main([command, job["id"], "--quiet"]) == 0
        assert capsys.readouterr().out == f"{said}\n"
    assert cli.main(["jobs", "--limit", "2", "-q"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == job["id"]
    resumed = ["submit", "--resume", job["id"]]
    assert cli.main(resumed) == 0
    assert "scored: 100%" in capsys.readouterr().err
    assert cli.main([*resumed, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert (of_status["id"], of_status["hosts"][0]["ok"]) == (job["id"], 1)
    table = tmp_path / "bom.csv"
    assert cli.main(["results", job["id"], "--bom", "-o", str(table)]) == 0
    assert table.read_text("utf-8").startswith("\ufeffid,")
    assert cli.main(["results", job["id"], "--bom", "--format", "jsonl"]) == 1
    assert "--bom is for CSV, and the results are jsonl" in capsys.readouterr().err
    again = tmp_path / "again.csv"
    assert cli.main([*resumed, "--bom", "-o", str(again)]) == 0
    assert again.read_bytes() == table.read_bytes()
    assert cli.main([*resumed, "--bom"]) == 1
    assert "--bom is for CSV, and there is no -o FILE" in capsys.readouterr().err
    book = tmp_path / "results.xlsx"
    assert cli.main(["results", job["id"], "-o", str(book)]) == 0
    header, row = openpyxl.load_workbook(book).active.values
    assert (header[:2], row[header.index("status")]) == (("id", "url"), "succeeded")
    assert 0 <= row[header.index("beach")] <= 1
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli.main(["open", job["id"]]) == 0
    assert opened == [f"{stack.url}/#{job['id']}"]
    assert capsys.readouterr().out.split() == opened
    assert cli.main(["open", "job_00000000000000000000000000"]) == 1
    assert len(opened) == 1


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack whose API may be killed, and which may get keys."""
    with Stack(tmp_path_factory.mktemp("own"), env=STACK_ENV) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 pictures on two levels, and what is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below ü").mkdir()
    for seed in range(150):
        name = f"below ü/{seed}.JPG" if seed % 2 else f"{seed}.jpg"
        (folder / name).write_bytes(jpeg(seed, 64, 48))
    (folder / "._0.jpg").write_bytes(b"left by a file manager")
    (folder / "notes.md").write_text("no picture")
    return folder


def kill_api(stack: Stack) -> None:
    assert stack.api_pid, "no process to kill: 0 would be this one and all of its group"
    os.kill(stack.api_pid, signal.SIGKILL)


def test_a_folder_is_uploaded_although_the_api_is_killed(
    own_stack: Stack,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("piqueue.commands.uploads.BATCH_FILES", 1)
    killed_at: list[int] = []

    def kill_in_the_middle() -> None:
        with Client(own_stack.url) as client:

            def has_some() -> bool:
                drafts = [job for job in client.jobs() if job.status == "draft"]
                killed_at[:] = [job.counts.total for job in drafts]
                return bool(drafts and drafts[0].counts.total)

            assert eventually(has_some)
        kill_api(own_stack)

    poison = threading.Thread(target=kill_in_the_middle)
    poison.start()
    results = tmp_path / "results.csv"
    code = cli.main(["submit", str(folder), "--url", own_stack.url, "-o", str(results)])
    poison.join()
    captured = capfd.readouterr()
    assert (code, 0 < killed_at[0] < 150) == (2, True), captured.err
    assert "waiting for the API: no answer" in captured.err
    assert "1 of 151 files are not part of the job:\n" in captured.err
    assert "  notes.md: not a picture by its first bytes\n" in captured.err
    assert "1 hidden files or folders are ignored" in captured.err
    assert "150 of 150 succeeded" in captured.out
    rows = {row["id"]: row for row in rows_of(results)}
    assert set(rows) == {
        f"below ü/{seed}.JPG" if seed % 2 else f"{seed}.jpg" for seed in range(150)
    }
    for row in rows.values():
        check_scores(row)


def test_a_job_is_followed_although_the_api_is_killed(
    own_stack: Stack, site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    with Client(own_stack.url) as client:
        job = client.submit_urls([site.url("/slow.jpg")] * 200)
    poison = threading.Timer(0.5, lambda: kill_api(own_stack))
    poison.start()
    assert cli.main(["submit", "--resume", job.id, "--url", own_stack.url]) == 0
    poison.join()
    captured = capfd.readouterr()
    assert "waiting for the API" in captured.err
    assert "200 of 200 succeeded" in captured.out


def test_a_table_is_submitted_once_although_the_api_is_killed_in_its_middle(
    own_stack: Stack, site: Site
) -> None:
    killed: list[int] = []

    def rows() -> Iterator[bytes]:
        yield b"url\n" + f"{site.url('/1.jpg')}\n".encode() * 20_000
        if not killed and own_stack.api_pid:
            killed.append(own_stack.api_pid)
            os.kill(own_stack.api_pid, signal.SIGKILL)
        yield b"".join(f"{site.url(f'/{seed}.jpg')}\n".encode() for seed in range(10))

    with Client(own_stack.url) as client:
        before = {job.id for job in client.jobs()}
        job = client.submit_csv(rows)
        assert killed
        assert {found.id for found in client.jobs()} - before == {job.id}
        client.delete(job.id)


def test_a_broken_off_upload_is_resumed_with_what_is_missing(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6):
        (tmp_path / f"{seed}.jpg").write_bytes(jpeg(seed))
    with Client(stack.url) as client:
        draft = client.open_draft()
        client.add_files(draft.id, {f"{seed}.jpg": tmp_path / f"{seed}.jpg" for seed in range(4)})
    assert cli.main(["submit", "--resume", draft.id]) == 1
    assert "name its pictures again" in capsys.readouterr().err
    for seed in range(4):  # would be refused if they were sent again
        (tmp_path / f"{seed}.jpg").write_text("no picture any more")
    assert cli.main(["submit", str(tmp_path), "--resume", draft.id]) == 0
    assert f"{draft.id} succeeded: 6 of 6" in capsys.readouterr().out
    assert cli.main(["submit", str(tmp_path / "4.jpg"), "--resume", draft.id]) == 0
    assert f"{draft.id} is no longer a draft, and nothing is added" in capsys.readouterr().err


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(stack: Stack, tmp_path: Path) -> None:
    held, after = asyncio.Event(), picture(1)

    async def hold(request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return await after(request)

    with Site({"/held.jpg": hold}) as holding:
        check_ctrl_c(stack, holding.url("/held.jpg"), lambda: holding.call(held.set), tmp_path)


def check_ctrl_c(stack: Stack, held_url: str, release: Callable[[], None], tmp_path: Path) -> None:
    results = tmp_path / "the results.csv"
    urls = tmp_path / "urls.txt"
    urls.write_text(f"{held_url}\n" * 300)
    # A test run in the background has Ctrl-C ignored, and its children with it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        piqueue("submit", urls, "-o", results),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    assert process.stderr
    started = process.stderr.readline()
    job = job_of(started)
    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=100)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in said
    hint = re.search(r"continues; to follow it: piqueue (.*)", said)
    assert hint, said
    assert not results.exists()
    with Client(stack.url) as client:
        assert client.job(job).status in ("queued", "running")
    release()
    again = run(*shlex.split(hint[1]))
    assert again.returncode == 0, again.stderr
    assert f"{job} succeeded: 300 of 300" in again.stdout
    assert len(rows_of(results)) == 300
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_the_exit_code_tells_some_failed_from_none_succeeded(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "photos.csv"
    table.write_text(f"url\n{site.url('/1.jpg')}\n{site.url('/none.jpg')}\n")
    assert cli.main(["submit", str(table)]) == 2
    assert "1 of 2 succeeded; 1 failed (not_an_image 1)" in capsys.readouterr().out
    table.write_text(f"url\n{site.url('/none.jpg')}\n")
    assert cli.main(["submit", str(table)]) == 1


def test_a_dry_run_tries_urls_and_keeps_nothing(
    stack: Stack, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(stack.url) as client:
        before = [job.id for job in client.jobs()]
        table = tmp_path / "photos.csv"
        table.write_text(f"url\n{site.url('/1.jpg')}\n{site.url('/none.jpg')}\n")
        assert cli.main(["submit", str(table), "--dry-run"]) == 2
        output = capsys.readouterr().out
        assert output.startswith("2 pictures for scenes@")
        assert "127.0.0.1: 2 tried, 2 fetched, not_an_image 1" in output
        urls = tmp_path / "urls.txt"
        urls.write_text(site.url("/1.jpg"))
        assert cli.main(["submit", str(urls), "--dry-run"]) == 0
        output = capsys.readouterr().out
        assert "127.0.0.1: 1 tried, 1 fetched, all succeeded" in output
        assert re.search(r"^estimated time: (less than 1|[1-9]\d*) s$", output, re.M)
        urls.write_text("http://127.0.0.1:1/\n" * 3)
        assert cli.main(["submit", str(urls), "--dry-run"]) == 1
        output = capsys.readouterr().out
        assert output.endswith("127.0.0.1: 3 tried, 0 fetched, fetch_connection 3\n")
        assert "estimated time" not in output
        assert cli.main(["submit", str(tmp_path / "x.jpg"), "--dry-run"]) == 1
        assert [job.id for job in client.jobs()] == before


def test_refused_rows_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "photos.csv"
    table.write_text("sku,url\na,http://h/\nb,ftp://h/\nc\n" + "d,x\n" * 200)
    assert cli.main(["submit", str(table), "--id-column", "sku"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"piqueue submit: {table}: 202 of the items")
    assert (
        lines[1]
        == "  item 1, b: line 3, column 'url': the URL must begin with http:// or https://, and is 'ftp://h/'"
    )
    assert "line 4, 'c', has 1 cells" in lines[2]
    assert lines[-1] == "  and 102 more"
    assert (captured.out, len(lines)) == ("", 102)


def test_an_unfit_url_of_a_list_is_named_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text("# ours\nhttp://h/1.jpg\n\n\nftp://h/2.jpg\n")
    assert cli.main(["submit", str(urls)]) == 1
    assert "  item 1: line 5: the URL must begin with" in capsys.readouterr().err


def test_a_file_that_is_no_picture_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    (tmp_path / "2.jpg").write_text("<html>")
    (tmp_path / "3.jpg").write_bytes(b"\xff\xd8\xff" + bytes(25_000_000))  # over any bound
    assert cli.main(["submit", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "2 of 3 files are not part of the job:" in captured.err
    assert "  2.jpg: not a picture by its first bytes" in captured.err
    assert "  3.jpg: the " in captured.err
    assert "1 of 1 succeeded" in captured.out
    (tmp_path / "1.jpg").unlink()
    assert cli.main(["submit", str(tmp_path)]) == 1
    assert "no file is left to submit" in capsys.readouterr().err


def test_pictures_are_told_by_their_first_bytes_and_the_others_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "photo.jfif", "download"):
        (tmp_path / name).write_bytes(jpeg(1))
    output = tmp_path / "results.csv"
    for code in (0, 0):  # the results of the first time are no file that is left out
        assert cli.main(["submit", str(tmp_path), "-o", str(output)]) == code
        assert "3 of 3 succeeded" in capsys.readouterr().out
    assert {row["id"] for row in rows_of(output)} == {"a.jpg", "photo.jfif", "download"}
    (tmp_path / "drawing.psd").write_bytes(b"8BPS\0\1" + bytes(100))
    (tmp_path / "notes.txt").write_text("ours")
    assert cli.main(["submit", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "3 of 6 files are not part of the job:" in captured.err
    assert "  notes.txt: not a picture by its first bytes" in captured.err
    assert "drawing.psd" in captured.err
    assert "3 of 3 succeeded" in captured.out

    alone = [str(tmp_path / name) for name in ("photo.jfif", "download")]
    assert cli.main(["submit", *alone]) == 0
    assert cli.main(["submit", alone[0], str(tmp_path / "notes.txt")]) == 1
    assert "notes.txt: give one table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit"], "name what to submit"),
        (["submit", "s3://bucket/prefix"], "fetches no pictures from the bucket bucket"),
        (["submit", "nowhere.csv"], "nowhere.csv: not found: correct the path"),
        (["submit", "http://h/a.jpg"], "is a URL: submit a .txt file of URLs"),
        (["submit", "api", "--max-failures", "x"], "no pictures there"),
        (["submit", "README", "LICENSE"], "not found"),
        (
            ["submit", "LICENSE"],
            "not a picture by its first bytes, and its name is not that of a table",
        ),
        (["submit", "LICENSE"], "submit a .csv"),
        (
            ["submit", "scripts/samples/labels.csv", "scripts/samples"],
            "one table, list or S3 folder",
        ),
        (["submit", "scripts/samples/labels.csv"], "labels.csv: line 1: there is no column 'url'"),
        (["submit", "scripts/samples/labels.csv"], "the right one as --url-column"),
        (["submit", "scripts/samples/labels.csv", "--encoding", "x"], "no such encoding"),
        (["submit", "scripts/samples/labels.csv", "--encoding", "utf-16"], "give --encoding"),
        (["submit", "scripts/samples/labels.csv", "--max-failures", "x"], "max_failures"),
        (["submit", "scripts/samples/labels.csv", "--model", "no"], "no model"),
        (["submit", "scripts/samples", "-o", "results.xls"], "name a file that ends in .csv"),
        (["submit", "scripts/samples", "-o", "nowhere/results.csv"], "no folder nowhere"),
        (["submit", "scripts/samples", "-o", "a.csv", "--no-wait"], "-o a.csv: there are no resu"),
        (["submit", "/dev/null"], "/dev/null: not a regular file"),
        (["status", "job_unknown"], "no job job_unknown"),
        (["results", "job_unknown"], "no job job_unknown"),
        (["results", "job_unknown", "-o", "nowhere/results.csv"], "no folder nowhere"),
        (["results", "../x"], "'../x' is no job id: give one like job_"),
        (["submit", "--resume", "7"], "'7' is no job id: give one like job_"),
        (["submit", "scripts/samples", "--name", "\udcff"], "--name: '\\udcff' is not UTF-8"),
        (["submit", "scripts/samples", "--webhook-url", "x"], "webhook_url: "),
        (["jobs", "--url", "localhost:8000"], "is not the address of an API"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str],
    says: str,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_stray_quotes_in_a_table_of_another_form_lose_no_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "packed.tsv.gz"
    rows = "a\thttp://h/\n" * 2500 + '"10" inch\thttp://h/\n'
    table.write_bytes(gzip.compress(f"sku\turl\n{rows}".encode()))
    assert cli.main(["submit", str(table), "--no-wait"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{table}, line 2502: the row that begins there is malformed" in captured.err


def test_a_table_of_a_database_is_submitted_without_quotes(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = tmp_path / "photos.tsv", tmp_path / "results.csv"
    urls = [site.url(f"/{at}.jpg") for at in range(2)]
    table.write_text(f'size\turl\n10"\t{urls[0]}\n"12\t{urls[1]}\n')
    assert cli.main(["submit", str(table), "--no-quotes", "-o", str(output)]) == 0
    assert [(row["size"], row["url"]) for row in rows_of(output)] == [
        ('10"', urls[0]),
        ('"12', urls[1]),
    ]


def test_a_workbook_is_submitted_and_its_rows_are_named(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = tmp_path / "photos.xlsx", tmp_path / "results.csv"
    note = ["two\nlines", "one", "one"]
    urls = [site.url("/1.jpg"), site.url("/2.jpg"), "ftp://h/"]
    frame = pandas.DataFrame({"note": note, "url": urls})
    frame[:2].to_excel(table, index=False)
    assert cli.main(["submit", str(table), "-o", str(output)]) == 0
    assert [(row["note"], row["url"]) for row in rows_of(output)] == list(
        zip(note[:2], urls[:2], strict=True)
    )
    frame.to_excel(table, index=False)
    assert cli.main(["submit", str(table)]) == 1
    says = capsys.readouterr().err
    assert f"{table}: 1 of the items are refused" in says
    assert "item 2: line 4, column 'url': the URL must begin" in says


def test_the_results_replace_the_table_only_if_that_is_asked_for(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "photos.csv"
    table.write_text(f"url\n{site.url('/1.jpg')}\n")
    link = tmp_path / "link.csv"
    link.symlink_to(table)
    before = table.read_text()
    for output in (table, link):
        assert cli.main(["submit", str(table), "-o", str(output)]) == 1
        assert f"would replace {table}" in capsys.readouterr().err
        assert table.read_text() == before
    assert cli.main(["submit", str(table), "-o", str(table), "--overwrite-input"]) == 0
    assert rows_of(table)[0]["status"] == "succeeded"


def test_a_job_is_left_alone_looked_at_cancelled_and_deleted(
    stack: Stack, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prints(*arguments: str) -> str:
        assert cli.main(arguments) == 0
        return capsys.readouterr().out

    urls = tmp_path / "urls.txt"
    urls.write_text(f"{site.url('/slow.jpg')}\n" * 500)
    job = prints("submit", str(urls), "--no-wait", "--max-failures", "5%", "--expires-in", "2h")
    job = job.removesuffix("\n")
    assert job == job_of(job)
    with Client(stack.url) as client:
        lifetime = client.job(job).expires_at - client.job(job).created_at
    assert lifetime == timedelta(hours=2)
    part = tmp_path / "part.csv"
    assert cli.main(["results", job, "-o", str(part)]) == 0
    says = (
        rf"{job} is \w+: \d+ of 500 pictures have a result\. `piqueue submit --resume {job}` waits"
    )
    assert re.match(says, capsys.readouterr().err)
    assert f"{job} cancel" in prints("cancel", job)
    assert cli.main(["submit", "--resume", job]) in (1, 2)
    assert f"{job} cancelled: " in capsys.readouterr().out
    assert cli.main(["results", job]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("id,url,status,beach,city,sunset,trees,labels")
    says = rf"{job} cancelled: \d+ of 500 pictures were cancelled and have no result\. To score"
    assert re.match(says, captured.err)
    assert cli.main(["delete", job]) == 0
    assert re.match(rf"deleted {job} \(cancelled\): \d+ of 500", capsys.readouterr().err)
    assert cli.main(["status", job]) == 1


def test_results_say_why_pictures_of_a_failed_job_have_none(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text(f"{site.url('/none.jpg')}\n" * 200 + f"{site.url('/slow.jpg')}\n" * 500)
    assert cli.main(["submit", str(urls), "--max-failures", "1"]) in (1, 2)
    job = job_of(capsys.readouterr().out)
    assert cli.main(["results", job, "-o", str(tmp_path / "part.csv")]) == 0
    says = rf"{job} failed \(failure_budget: .*\): \d+ of 700 pictures were cancelled and have no"
    assert re.match(says, capsys.readouterr().err)
    urls.write_text(f"{site.url('/1.jpg')}\n{site.url('/none.jpg')}\n")
    assert cli.main(["submit", str(urls)]) == 2
    job = job_of(capsys.readouterr().out)
    assert cli.main(["results", job]) == 0
    assert capsys.readouterr().err == ""


def test_a_webhook_and_the_cache_are_asked_for_by_options(
    stack: Stack, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text(site.url("/1.jpg"))
    hook = site.url("/hook")
    with httpx2.Client(base_url=stack.url, timeout=60) as client:

        def is_cached() -> bool:
            assert cli.main(["submit", str(urls), "--use-cache", "--webhook-url", hook]) == 0
            job = job_of(capsys.readouterr().out.splitlines()[-1])
            assert client.get(f"/jobs/{job}/webhook").json()["url"] == hook
            return bool(client.get(f"/jobs/{job}").json()["counts"]["cached"])

        # A worker caches scores just after their commit.
        assert eventually(is_cached)


def test_a_reader_that_leaves_early_hears_no_complaint(
    stack: Stack, site: Site, tmp_path: Path
) -> None:
    item = Item(url=site.url("/1.jpg"), columns={"long": "x" * 9000})  # a pipe holds 64 KB
    with Client(stack.url) as client:
        job = client.wait(client.submit_items([item] * 40).id, timeout_s=60)
    pipeline = f"{shlex.join(piqueue('results', job.id))} | head -n 1"
    answer = subprocess.run(
        ["sh", "-c", pipeline], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.startswith("id,url,long,status")
    assert answer.stderr == ""


def test_a_retry_is_read_together_with_its_parent(
    site: Site, later: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = tmp_path / "urls.txt"
    urls.write_text(f"{site.url('/1.jpg')}\n{later}\n")
    assert cli.main(["submit", str(urls)]) == 2
    job = job_of(capsys.readouterr().out)
    assert cli.main(["retry", job]) == 0
    again = job_of(capsys.readouterr().out)
    assert cli.main(["submit", "--resume", again]) == 0
    results = tmp_path / "results.csv"
    merged = ["results", again, "--merge", "--label", "sunset", "--threshold", "0", "-o"]
    assert cli.main([*merged, str(results)]) == 0
    assert [(row["url"], row["status"]) for row in rows_of(results)] == [
        (site.url("/1.jpg"), "succeeded"),
        (later, "succeeded"),
    ]


def test_on_a_terminal_there_is_a_bar(site: Site) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    shown = b""
    with subprocess.Popen(
        piqueue("submit", "-"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        assert process.stdin
        process.stdin.write(f"{site.url('/slow.jpg')}\n".encode() * 100)
        process.stdin.close()
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            shown += part
        assert process.wait(60) == 0
    os.close(ours)
    text = shown.decode()
    assert "100/100" in text
    assert "pictures/s" in text
    assert "\r" in text.strip()


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("submit", "results"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert f"  piqueue {command} " in capsys.readouterr().out
    assert "--workers" in run("serve", "--help").stdout


def test_a_priority_that_is_none_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["submit", "photos.csv", "--priority", "high"])
    assert "there is no 'high': choose from interactive, bulk" in capsys.readouterr().err
