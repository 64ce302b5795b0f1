"""The pictures of a folder are told by their first bytes, and all other files are listed."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from piqueue.commands.pictures import find_pictures, named, picture_problem, search
from piqueue.commands.terminal import CommandFailed
from tests.pictures import jpeg

HEADS = {
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0",
    "jxl": b"\0\0\0\x0cJXL \r\n\x87\n",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "bigtiff": b"II+\0\x08\0\0\0",
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_that_workers_decode_is_a_picture(kind: str, tmp_path: Path) -> None:
    Image.open(io.BytesIO(jpeg(1))).save(tmp_path / "picture", kind)
    assert picture_problem(tmp_path / "picture") is None


def test_a_folder_is_searched_by_first_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b.jpg", "a.jfif", "download", "below/c.dat"):
        (tmp_path / name).write_bytes(jpeg(1))
    for name, head in HEADS.items():
        (tmp_path / f"{name}.bin").write_bytes(head + bytes(100))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html>")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    for name in (".hidden.jpg", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(jpeg(1))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "d.jpg").write_bytes(jpeg(1))

    found = search(tmp_path)
    pictures = [path.relative_to(tmp_path).as_posix() for path in found.pictures]
    heads = [f"{name}.bin" for name in HEADS]
    assert pictures == sorted(["a.jfif", "b.jpg", "below/c.dat", "download", *heads])
    assert [(path.name, why) for path, why in found.others] == [
        ("empty.jpg", "the file is empty"),
        ("film.mp4", "not a picture by its first bytes"),
        ("page.jpg", "not a picture by its first bytes"),
    ]
    assert found.hidden_count == 4
    assert find_pictures(tmp_path) == found.pictures
    told = capsys.readouterr().err
    assert ("page.jpg: not a picture" in told, "film.mp4" in told) == (True, False)


def test_what_cannot_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.jpg").write_bytes(jpeg(1))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jpg").symlink_to(elsewhere / "1.jpg")
    (folder / "b.jpg").symlink_to(elsewhere / "gone.jpg")
    (folder / "c").symlink_to(elsewhere, target_is_directory=True)
    (folder / "d").mkdir()
    os.mkfifo(folder / "e")

    def scandir(path: str, real: object = os.scandir) -> object:
        # The tests may run as root, who may read everything.
        if Path(path).name == "d":
            raise PermissionError(13, "Permission denied", path)
        return real(path)  # type: ignore[operator]

    monkeypatch.setattr(os, "scandir", scandir)
    found = search(folder)
    assert [path.name for path in found.pictures] == ["a.jpg"]
    assert [(path.name, why) for path, why in found.others] == [
        ("b.jpg", "a link to a file that is missing"),
        ("c", "a link to a folder: name that folder too"),
        ("d", "cannot be read: Permission denied"),
        ("e", "not a regular file"),
    ]


def test_names_that_are_not_utf_8_are_different_ids(tmp_path: Path) -> None:
    names = [b"caf\xe8.jpg", b"caf\xe9.jpg", "café.jpg".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(jpeg(1))
    pictures = search(tmp_path).pictures
    assert set(named(pictures)) == {r"caf\xe8.jpg", r"caf\xe9.jpg", "café.jpg"}
    with pytest.raises(CommandFailed, match="two files would have the id"):
        named([*pictures, tmp_path / r"caf\xe9.jpg"])


def test_files_of_the_same_name_keep_their_paths() -> None:
    paths = [Path("a/1.jpg"), Path("b/1.jpg"), Path("b/2.jpg")]
    assert list(named(paths)) == ["a/1.jpg", "b/1.jpg", "2.jpg"]
