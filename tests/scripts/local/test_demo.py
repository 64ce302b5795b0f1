"""The demo's own steps, on a running Piqueue."""

import re
from pathlib import Path

import httpx2
import pytest

from piqueue.commands.pictures import named
from scripts.local.demo import DemoFailed, demonstrate, find_photos
from scripts.local.stack import Stack
from tests.pictures import jpeg


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them below, with names that want quoting, and no picture."""
    (tmp_path / "below").mkdir()
    (tmp_path / "b & é.jpg").write_bytes(jpeg(1))
    (tmp_path / "below" / "a.JPG").write_bytes(jpeg(2))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_photos_are_scored_as_files_and_by_url(
    stack: Stack, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demonstrate(stack.url, named(find_photos([folder])))
    output = capsys.readouterr().out
    assert "2 of 2 files" in output
    assert "2 of 2 URLs" in output
    header, *rows = output.strip().splitlines()[-5:]
    assert header.split() == ["item", "source", "beach", "city", "sunset", "trees", "labels"]
    assert [row[: row.index("0.")].split() for row in rows] == [
        ["b", "&", "é.jpg", "upload"],
        ["a.JPG", "upload"],
        ["b", "&", "é.jpg", "url"],
        ["a.JPG", "url"],
    ]


def test_the_first_of_many_photos_are_shown(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(25):
        (tmp_path / f"{number:02}.jpg").write_bytes(jpeg(number))
    (tmp_path / "24.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    assert not demonstrate(stack.url, named(find_photos([tmp_path])))
    output = capsys.readouterr().out
    assert "25 of 25 pictures\n" in output
    assert "URLs" not in output
    *_, last_row, more, _, curl = output.strip().splitlines()
    assert last_row.startswith("19.jpg")
    assert more == "and 5 more, of which 1 failed"
    [address] = re.findall(r"curl '(http\S+)'", curl)
    assert httpx2.get(address).text.count("\n") == 26


def test_a_bad_photo_is_shown_and_the_demo_fails(
    stack: Stack, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "page.jpg").write_bytes(b"<html>")
    (folder / "z.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    assert not demonstrate(stack.url, named(find_photos([folder])))
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("z.jpg")
    assert "page.jpg: not a picture by its first bytes" in captured.err


def test_photos_of_the_same_name_keep_their_paths(tmp_path: Path) -> None:
    photos = [tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg", tmp_path / "b" / "2.jpg"]
    assert list(named(photos)) == [str(photos[0]), str(photos[1]), "2.jpg"]


def test_a_path_without_pictures_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DemoFailed, match="no pictures there"):
        list(find_photos([tmp_path]))
    with pytest.raises(DemoFailed, match="not found"):
        list(find_photos([tmp_path / "nowhere"]))
    assert capsys.readouterr().err == "", "it is said once"
