"""piqueue collect and piqueue download, against a fake of the Unsplash API."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from scripts.commands.__main__ import main
from tests.pictures import jpeg
from tests.scripts.workshop.collecting.unsplash_site import KEY, Shot, UnsplashSite

BEACHES = [Shot(f"beach{number}", jpeg(number)) for number in range(40)]
BOTH = Shot("both", jpeg(50))
DRAWN = Shot("drawn", jpeg(51), description="A beach, as a Line  Drawing")
TAGGED = Shot("tagged", jpeg(52), tags=("sea", "line drawing"))
REDRAWN = Shot("redrawn", jpeg(53), description="line drawings redrawn")
CITIES = [BOTH, *(Shot(f"city{number}", jpeg(60 + number)) for number in range(3))]


@pytest.fixture
def unsplash(monkeypatch: pytest.MonkeyPatch) -> Iterator[UnsplashSite]:
    """A fake of the Unsplash API that the commands use."""
    found = {"beach": [DRAWN, TAGGED, REDRAWN, BOTH, *BEACHES], "city": CITIES}
    with UnsplashSite(found) as site:
        monkeypatch.setenv("PIQUEUE_UNSPLASH_URL", site.url(""))
        monkeypatch.setenv("PIQUEUE_UNSPLASH_KEY", KEY)
        monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "127.0.0.1/32")
        yield site


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def collect(out: Path, count: int, *more: str, keywords: tuple[str, ...] = ("beach",)) -> int:
    words = [part for keyword in keywords for part in ("--keyword", keyword)]
    return main(
        ["collect", "--source", "unsplash", *words, "--count", str(count), "--out", str(out), *more]
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ids(path: Path) -> list[str]:
    return [row["name"].removesuffix(".jpg") for row in rows_of(path)]


def test_photos_are_collected_with_labels_and_credits(unsplash: UnsplashSite, data: Path) -> None:
    assert collect(data, 3, "--negative", "line drawing", keywords=("beach", "city")) == 0
    rows = rows_of(data)
    labels = {row["name"]: (row["beach"], row["city"]) for row in rows}
    assert labels == {
        "redrawn.jpg": ("1", "0"),
        "both.jpg": ("1", "1"),
        "beach0.jpg": ("1", "0"),
        "city0.jpg": ("0", "1"),
        "city1.jpg": ("0", "1"),
    }
    assert {row["guessed"] for row in rows} == {"yes"}
    assert rows[1]["url"] == unsplash.url("/images/both?w=400")
    assert rows[1]["photographer"] == "Ann, who took both"
    referral = "?utm_source=piqueue&utm_medium=referral"
    assert rows[1]["photographer_url"] == f"https://unsplash.com/@ann{referral}"
    assert rows[1]["photo_url"] == f"https://unsplash.com/photos/both{referral}"
    assert unsplash.reported == []


def test_a_larger_count_continues_with_the_next_pages_and_repeats_no_search(
    unsplash: UnsplashSite, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(data, 32) == 0
    assert collect(data, 32) == 0
    assert unsplash.searched == [("beach", 1), ("beach", 2)]
    assert collect(data, 60) == 2  # there are no more than 44
    assert unsplash.searched[2:] == [("beach", 2)]
    assert sorted(ids(data)) == sorted(shot.id for shot in unsplash.found["beach"])
    assert "beach: 44 of 60 photos" in capsys.readouterr().out


def test_the_hourly_limit_stops_the_search_and_the_next_run_continues(
    unsplash: UnsplashSite, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsplash.remaining = 1
    assert collect(data, 44) == 2
    assert len(ids(data)) == 30
    printed = capsys.readouterr().err
    assert "Unsplash's hourly limit of 50 requests is reached" in printed
    assert "run the same command again" in printed
    assert unsplash.refused_count == 0  # the answer before had announced the limit
    unsplash.remaining = 0
    assert collect(data, 44) == 2
    assert len(ids(data)) == 30
    assert "hourly limit of 50 requests is reached" in capsys.readouterr().err
    unsplash.remaining = 50
    assert collect(data, 44) == 0
    assert len(set(ids(data))) == 44


def test_wait_continues_after_the_pause_that_the_api_asks_for(
    unsplash: UnsplashSite, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsplash.answers = [
        web.Response(status=429, headers={"Retry-After": "0"}),
        web.Response(status=503),
    ]
    assert collect(data, 2, "--wait") == 0
    assert "trying again in 0 s" in capsys.readouterr().err


def test_an_invalid_access_key_and_a_missing_one_are_reported(
    unsplash: UnsplashSite,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIQUEUE_UNSPLASH_KEY", "another")
    assert collect(data, 2) == 1
    assert "rejected the access key" in capsys.readouterr().err
    monkeypatch.delenv("PIQUEUE_UNSPLASH_KEY")
    assert collect(data, 2) == 1
    assert "set PIQUEUE_UNSPLASH_KEY" in capsys.readouterr().err
    assert not data.exists()


def test_another_refusal_is_reported_with_the_reason_that_the_api_gives(
    unsplash: UnsplashSite, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsplash.answers = [web.json_response({"errors": ["Missing permissions"]}, status=403)]
    assert collect(data, 2) == 1
    assert "Unsplash answered 403 (Missing permissions" in capsys.readouterr().err
    unsplash.answers = [web.json_response({"results": [{"id": "../x"}]})]
    assert collect(data, 2) == 1
    assert "is not the Unsplash API" in capsys.readouterr().err


def test_photos_of_other_keywords_get_no_label(unsplash: UnsplashSite, data: Path) -> None:
    assert collect(data, 2, "--other", "city") == 0
    labels = {row["name"]: row["beach"] for row in rows_of(data)}
    assert labels == {"drawn.jpg": "1", "tagged.jpg": "1", "both.jpg": "0", "city0.jpg": "0"}


@pytest.mark.parametrize("words", ["name", " ", "a;b", "a/1"])
def test_a_keyword_that_cannot_be_a_label_is_rejected(
    unsplash: UnsplashSite, data: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(data, 2, keywords=(words,)) == 1
    assert "cannot be a label" in capsys.readouterr().err


def test_each_downloaded_photo_is_reported_once_within_the_limit(
    unsplash: UnsplashSite, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(data, 3) == 0
    unsplash.remaining = 2
    assert main(["download", str(data)]) == 2
    assert unsplash.reported == ["drawn", "tagged"]
    assert "1 downloads are not reported to Unsplash yet" in capsys.readouterr().err
    images = data.parent / "images"
    assert (images / "tagged.jpg").read_bytes() == TAGGED.payload
    unsplash.remaining = 2
    assert main(["download", str(data)]) == 0
    assert unsplash.reported == ["drawn", "tagged", "redrawn"]


def test_only_the_api_receives_the_access_key(
    unsplash: UnsplashSite, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(data, 1) == 0
    with UnsplashSite(unsplash.found) as stranger:
        data.write_text(data.read_text().replace(unsplash.url("/photos"), stranger.url("/photos")))
        assert main(["download", str(data)]) == 0
        assert stranger.reported == []
    assert "drawn.jpg: its download_location is not below" in capsys.readouterr().err
