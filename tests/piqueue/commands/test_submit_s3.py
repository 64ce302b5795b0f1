"""piqueue submit s3://bucket/prefix, against a running Piqueue and a real S3 server."""

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from piqueue import Client, cli
from piqueue.commands.s3_listing import connect_s3, list_pictures
from piqueue.commands.sources import S3Folder
from scripts.images.s3_server import BUCKET, S3Server
from scripts.local.stack import Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg

NAMES = [f"{seed}.JPG" if seed % 2 else f"below ü/{seed} %2F.jpg" for seed in range(12)]


@pytest.fixture(scope="module")
def stack_url(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[str]:
    """Run a stack that takes pictures from the bucket."""
    env = {**STACK_ENV, **s3_server.env, "PIQUEUE_S3_FETCH_BUCKETS": f"{BUCKET},gone"}
    with Stack(tmp_path_factory.mktemp("from-s3"), env=env) as running:
        yield running.url


@pytest.fixture(scope="module")
def folder(s3_server: S3Server) -> str:
    """Give a folder of twelve pictures, with others around them."""
    for seed, name in enumerate(NAMES):
        s3_server.put(f"holiday/{name}", jpeg(seed))
    for name in ("text/notes.md", "._0.jpg", ".hidden/1.jpg", "text/.hidden"):
        s3_server.put(f"holiday/{name}", b"no picture")
    s3_server.client.put_object(Bucket=BUCKET, Key="holiday/empty/")
    s3_server.put("holiday-2/0.jpg", jpeg(0))
    return f"s3://{BUCKET}/holiday"


@pytest.fixture(autouse=True)
def _surroundings(
    stack_url: str, s3_server: S3Server, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIQUEUE_URL", stack_url)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_all_pictures_below_a_prefix_are_scored(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    assert cli.main(["submit", folder, "-o", str(results)]) == 2
    captured = capsys.readouterr()
    assert f"{folder}/: 12 pictures, and 3 hidden ones are ignored" in captured.err
    assert "1 other objects are not part of the job:\n  text/notes.md: not a " in captured.err
    assert "12 of 12 succeeded" in captured.out
    found = {item["id"]: item for item in map(json.loads, results.read_text().splitlines())}
    assert set(found) == set(NAMES)
    for seed, name in enumerate(NAMES):
        assert found[name]["source"]["url"] == f"{folder}/{name}"
        assert found[name]["image"]["sha256"] == hashlib.sha256(jpeg(seed)).hexdigest()


def test_a_job_of_a_prefix_is_resumed_and_written_in_each_format(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["submit", f"{folder}/below ü/", "--no-wait"]) == 0
    captured = capsys.readouterr()
    assert f"{folder}/below ü/: 6 pictures\n" in captured.err
    job = captured.out.strip()
    for name in ("results.csv", "results.parquet"):
        assert cli.main(["submit", folder, "--resume", job, "-o", str(tmp_path / name)]) == 0
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist()
    wanted = [(f"{seed} %2F.jpg", f"{folder}/below ü/{seed} %2F.jpg") for seed in range(0, 12, 2)]
    for found in (rows, table):
        assert sorted((row["id"], row["url"]) for row in found) == sorted(wanted)
        assert {row["status"] for row in found} == {"succeeded"}


def test_a_whole_bucket_is_tried_without_a_job(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client() as client:
        before = [job.id for job in client.jobs()]
        assert cli.main(["submit", folder, "--dry-run"]) == 0
        assert [job.id for job in client.jobs()] == before
    captured = capsys.readouterr()
    assert captured.out.startswith("12 pictures for scenes@")
    assert f"{BUCKET}: 12 tried, 12 fetched, all succeeded" in captured.out


def test_a_long_list_is_read_page_by_page_and_a_second_time_the_same(
    folder: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_small_pages() -> object:
        client = connect_s3()
        client.meta.events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 5}
        )
        return client

    monkeypatch.setattr("piqueue.commands.s3_listing.connect_s3", in_small_pages)
    with list_pictures(S3Folder.of(folder)) as listed:
        assert (listed.picture_count, listed.other_count, listed.hidden_count) == (12, 1, 3)
        first = b"".join(listed.items())
        assert {json.loads(line)["id"] for line in first.splitlines()} == set(NAMES)
        late = "holiday/late.jpg"
        s3_server.put(late, b"came meanwhile")
        try:
            assert b"".join(listed.items()) == first
        finally:
            s3_server.client.delete_object(Bucket=BUCKET, Key=late)


@pytest.mark.parametrize(
    ("source", "env", "says"),
    [
        ("s3://elsewhere/a", {}, "add it to PIQUEUE_S3_FETCH_BUCKETS"),
        ("s3://gone/a", {}, "there is no bucket gone"),
        ("s3://", {}, "give s3://bucket"),
        (f"s3://{BUCKET}/holi", {}, "no pictures there: check the prefix\n"),
        (f"s3://{BUCKET}/holiday/text", {}, "no pictures there, only 2 other objects"),
        (f"s3://{BUCKET}", {"AWS_ACCESS_KEY_ID": None}, "set AWS_ACCESS_KEY_ID"),
        (f"s3://{BUCKET}", {"AWS_SECRET_ACCESS_KEY": "x"}, "403 (SignatureDoesNotMatch)"),
        (f"s3://{BUCKET}", {"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found"),
        (f"s3://{BUCKET}", {"PIQUEUE_S3_ENDPOINT_URL": "http://127.0.0.1:1"}, "not connect to"),
    ],
)
def test_what_cannot_be_listed_is_said_in_one_line(
    source: str,
    env: dict[str, str | None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in env.items():
        if value is None:
            for every in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.delenv(every)
        else:
            monkeypatch.setenv(name, value)
    assert cli.main(["submit", source]) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_without_boto3_it_is_said_what_to_install(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert cli.main(["submit", folder]) == 1
    assert "pip install 'piqueue[s3]'" in capsys.readouterr().err
