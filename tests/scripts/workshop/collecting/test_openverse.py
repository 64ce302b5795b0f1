"""piqueue collect from Openverse, against a fake of its API, and the terms of Unsplash."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from scripts.commands.__main__ import main
from tests.pictures import jpeg
from tests.scripts.workshop.collecting.openverse_site import OpenverseSite
from tests.scripts.workshop.collecting.test_collect import rows_of
from tests.scripts.workshop.collecting.unsplash_site import Shot

SHOTS = [Shot(f"beach{number}", jpeg(number)) for number in range(25)]
DRAWN = Shot("drawn", jpeg(50), tags=("line drawing",))
PUBLIC, NOT_FREE = Shot("public", jpeg(51)), Shot("not-free", jpeg(52))


@pytest.fixture
def openverse(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenverseSite]:
    """A fake of the Openverse API that the commands use."""
    found = {"beach": [DRAWN, NOT_FREE, PUBLIC, *SHOTS]}
    with OpenverseSite(found, {"public": "pdm", "not-free": "by-nc"}) as site:
        monkeypatch.setenv("PIQUEUE_OPENVERSE_URL", site.url(""))
        monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "127.0.0.1/32")
        yield site


def collect(out: Path, count: int, *more: str) -> int:
    return main(["collect", "--keyword", "beach", "--count", str(count), "--out", str(out), *more])


def test_each_photo_has_its_licence_and_its_author(
    openverse: OpenverseSite, tmp_path: Path
) -> None:
    table = tmp_path / "data.csv"
    assert collect(table, 2, "--negative", "line drawing") == 0
    public, beach = rows_of(table)
    assert (public["name"], public["license"]) == ("public.jpg", "Public Domain Mark 2.0")
    assert public["photographer"] == "unknown"
    assert beach["name"] == "beach0.jpg"
    assert beach["url"] == openverse.url("/images/beach0")
    assert beach["license"] == "CC BY 2.0"
    assert beach["license_url"] == "https://creativecommons.org/licenses/by/2.0/"
    assert beach["photographer"] == "Ann, who took beach0"
    assert beach["photographer_url"] == "https://www.flickr.com/photos/ann"
    assert beach["photo_url"] == "https://www.flickr.com/photos/ann/beach0"
    assert (beach["beach"], beach["guessed"]) == ("1", "yes")
    assert main(["download", str(table), "--kept", str(tmp_path / "labels.csv")]) == 0
    assert (tmp_path / "images/beach0.jpg").read_bytes() == SHOTS[0].payload
    assert rows_of(tmp_path / "labels.csv")[1]["license"] == "CC BY 2.0"


def test_only_the_licences_asked_for_are_found(openverse: OpenverseSite, tmp_path: Path) -> None:
    assert collect(tmp_path / "free.csv", 100) == 2
    assert len(rows_of(tmp_path / "free.csv")) == 27
    assert openverse.searched == [("beach", 1), ("beach", 2)]
    assert collect(tmp_path / "nc.csv", 1, "--license", "by-nc") == 0
    assert [row["license"] for row in rows_of(tmp_path / "nc.csv")] == ["CC BY-NC 2.0"]


def test_a_short_limit_is_waited_for_and_a_long_one_stops_the_search(
    openverse: OpenverseSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openverse.answers = [web.Response(status=429, headers={"Retry-After": "0"})]
    assert collect(tmp_path / "data.csv", 2) == 0
    assert "Openverse's limit is reached: trying again in 0 s" in capsys.readouterr().err
    openverse.answers = [web.Response(status=429, headers={"Retry-After": "40000"})]
    assert collect(tmp_path / "data.csv", 4) == 2
    assert "run the same command again later" in capsys.readouterr().err
    openverse.answers = [web.json_response({"detail": "Invalid licence"}, status=400)]
    assert collect(tmp_path / "data.csv", 4) == 1
    assert "Openverse answered 400 (Invalid licence)" in capsys.readouterr().err


def test_unsplash_says_that_its_terms_forbid_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIQUEUE_UNSPLASH_KEY", raising=False)
    assert collect(tmp_path / "data.csv", 2, "--source", "unsplash") == 1
    assert "guidelines forbid training models on its photos" in capsys.readouterr().err
    assert collect(tmp_path / "data.csv", 2, "--source", "unsplash", "--license", "by") == 1
    assert "--license is for Openverse" in capsys.readouterr().err
