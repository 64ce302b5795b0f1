"""piqueue labels: the files of labelme to a table and back, and the split of a table."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.commands.__main__ import main
from tests.pictures import jpeg

ANNOTATION: dict[str, Any] = {
    "version": "5.5.0",
    "flags": {"__ignore__": False, "beach": True, "city": False},
    "shapes": [],
    "imagePath": "a.jpg",
    "imageData": None,
    "imageHeight": 240,
    "imageWidth": 320,
}


def write(file: Path, **changes: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(ANNOTATION | changes))


def from_labelme(folder: Path, table: Path, *more: str) -> int:
    return main(["labels", "from-labelme", str(folder), str(table), *more])


def to_labelme(table: Path, folder: Path, *more: str) -> int:
    return main(["labels", "to-labelme", str(table), str(folder), *more])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sideways(width: int, height: int) -> bytes:
    """A JPEG that its EXIF rotates by 90 degrees."""
    target = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (width, height), "green").save(target, "JPEG", exif=exif)
    return target.getvalue()


def test_flags_become_rows_and_ignored_pictures_do_not(tmp_path: Path) -> None:
    write(tmp_path / "a.json")
    write(tmp_path / "b.json", imagePath="b.png", flags={"city": True, "beach": True})
    write(tmp_path / "labels" / "c.json", imagePath="..\\sub\\c.jpg", flags={
        "beach": False, "city": False,
    })  # fmt: skip
    write(tmp_path / "d.json", imagePath="d.jpg", flags=ANNOTATION["flags"] | {"__ignore__": True})
    marked = tmp_path / "b.json"  # as Windows' editors save it
    marked.write_bytes(b"\xef\xbb\xbf" + marked.read_bytes())
    table = tmp_path / "labels.csv"
    assert from_labelme(tmp_path, table) == 0
    assert rows_of(table) == [
        {"name": "a.jpg", "beach": "1", "city": "0"},
        {"name": "b.png", "beach": "1", "city": "1"},
        {"name": "sub/c.jpg", "beach": "0", "city": "0"},
    ]


def test_a_guess_that_labelme_did_not_change_stays_a_guess(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("name,beach,city,guessed\na.jpg,1,0,yes\nb.png,0,1,yes\n")
    write(tmp_path / "a.json")
    write(tmp_path / "b.json", imagePath="b.png", flags={"city": True, "beach": True})
    assert from_labelme(tmp_path, table) == 0
    assert [row["guessed"] for row in rows_of(table)] == ["yes", ""]


def test_the_help_gives_labelme_only_options_that_all_its_versions_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["labels", "--help"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "labelme photos --" in line)
    assert re.findall(r"--\w+", line) == ["--flags"]


def test_answers_of_the_table_are_replaced_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.json")
    write(tmp_path / "b.json", imagePath="b.png")
    write(tmp_path / "c.json", imagePath="c.png")
    table = tmp_path / "labels.csv"
    text = "name,beach,city,guessed,left_out\r\na.jpg,0,1,,\r\nb.png,0,1,city,\r\n"
    table.write_text(text + "c.png,1,0,,yes\r\n", newline="")
    assert from_labelme(tmp_path, table) == 2
    assert table.read_bytes().decode() == text + "c.png,1,0,,yes\r\n"
    printed = capsys.readouterr().err
    assert "3 pictures have other labels in" in printed
    assert "  a.jpg\n  b.png\n  c.png\n" in printed
    assert from_labelme(tmp_path, table, "--replace") == 0
    labels = [(row["beach"], row["city"], row["guessed"]) for row in rows_of(table)]
    assert labels == [("1", "0", "")] * 3
    assert {row["left_out"] for row in rows_of(table)} == {""}


def test_flags_of_labelme_are_replaced_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(jpeg(1))
    table = tmp_path / "labels.csv"
    table.write_text("name,beach,city,left_out\na.jpg,0,1,\nb.jpg,0,1,yes\n")
    write(tmp_path / "a.json", flags={"beach": True})
    assert to_labelme(table, tmp_path) == 2
    assert json.loads((tmp_path / "a.json").read_text())["flags"] == {"beach": True, "city": True}
    assert "1 pictures have other labels in" in capsys.readouterr().err
    assert to_labelme(table, tmp_path, "--replace") == 0
    assert json.loads((tmp_path / "a.json").read_text())["flags"] == {"beach": False, "city": True}
    assert not (tmp_path / "b.json").exists()


def test_a_table_survives_the_round_trip(tmp_path: Path) -> None:
    text = (
        "name,url,beach,city,split\r\n"
        "a.jpg,https://example.com/a,1,0,val\r\n"
        "sub/tall.jpg,https://example.com/b,0,1,train\r\n"
        "c.jpg,https://example.com/c,0,0,train\r\n"
    )
    table = tmp_path / "labels.csv"
    table.write_bytes(text.encode())
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    for name, payload in [
        ("a.jpg", jpeg(1)),
        ("sub/tall.jpg", sideways(40, 20)),
        ("c.jpg", jpeg(2)),
    ]:
        (photos / name).write_bytes(payload)
    assert to_labelme(table, photos) == 0
    tall = json.loads((photos / "sub" / "tall.json").read_text())
    assert tall == {
        "version": "5.5.0",
        "flags": {"beach": False, "city": True},
        "shapes": [],
        "imagePath": "tall.jpg",
        "imageData": None,
        "imageHeight": 40,
        "imageWidth": 20,
    }
    assert (photos / "labels.txt").read_text() == "beach\ncity\n"
    (photos / "labels.txt").write_text("__ignore__\ncity\nsharp\n")
    assert to_labelme(table, photos) == 0
    assert (photos / "labels.txt").read_text() == "__ignore__\ncity\nsharp\nbeach\n"

    tall["flags"]["city"] = False
    (photos / "sub" / "tall.json").write_text(json.dumps(tall))
    assert from_labelme(photos, table, "--replace") == 0
    assert table.read_bytes().decode() == text.replace("b,0,1", "b,0,0")

    fresh = tmp_path / "fresh.csv"
    assert from_labelme(photos, fresh) == 0
    assert [(row["name"], row["beach"], row["city"]) for row in rows_of(fresh)] == [
        ("a.jpg", "1", "0"),
        ("c.jpg", "0", "0"),
        ("sub/tall.jpg", "0", "0"),
    ]


def test_shapes_from_labelme_are_preserved_when_the_flags_are_written(tmp_path: Path) -> None:
    shape = {"label": "palm", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"}
    write(tmp_path / "a.json", shapes=[shape], lineColor=[0, 255, 0], flags={"done": True})
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    table = tmp_path / "labels.csv"
    table.write_text("name,beach,city\na.jpg,0,1\n")
    assert to_labelme(table, tmp_path) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["shapes"] == [shape]
    assert content["lineColor"] == [0, 255, 0]
    assert content["flags"] == {"done": True, "beach": False, "city": True}


def test_every_invalid_file_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.json")
    write(tmp_path / "fewer.json", imagePath="e.jpg", flags={"beach": True})
    write(tmp_path / "words.json", imagePath="f.jpg", flags={"beach": "yes", "city": False})
    write(tmp_path / "outside.json", imagePath="../../a.jpg")
    write(tmp_path / "twice.json")
    (tmp_path / "cut.json").write_text('{"flags": {"be')
    (tmp_path / "other.json").write_text('{"packages": []}')
    assert from_labelme(tmp_path, tmp_path / "labels.csv") == 1
    printed = capsys.readouterr().err
    for words in (
        "fewer.json: the flags city of other files are missing",
        "words.json is not a file of labelme (flags.beach: Input should be a valid boolean",
        "outside.json: its picture ../../a.jpg is not in",
        f"twice.json: {tmp_path / 'a.json'} has the same picture",
        "cut.json is not a file of labelme (Invalid JSON",
        "other.json is not a file of labelme (flags: Field required",
    ):
        assert words in printed
    assert not (tmp_path / "labels.csv").exists()


def test_pictures_that_are_missing_or_share_a_file_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "b.jpg").write_text("no picture")
    table = tmp_path / "labels.csv"
    table.write_text("name,beach\na.jpg,1\na.png,0\nb.jpg,1\nmissing.jpg,0\n")
    assert to_labelme(table, tmp_path) == 1
    printed = capsys.readouterr().err
    assert "a.json: belongs to a.png and to another picture" in printed
    assert f"{tmp_path / 'b.jpg'} cannot be read (not_an_image" in printed
    assert f"{tmp_path / 'missing.jpg'} does not exist: copy it there" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "labels.csv"]


def test_a_folder_without_flags_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.json", flags={})
    assert from_labelme(tmp_path, tmp_path / "labels.csv") == 1
    assert "there is no file of labelme with flags" in capsys.readouterr().err


def test_pictures_that_are_left_out_are_not_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{at}.jpg,{at % 2},{'yes' * (at >= 10)}" for at in range(20)]
    table.write_text("\n".join(["name,beach,left_out", *rows]))
    assert main(["labels", "split", str(table)]) == 0
    assert capsys.readouterr().out == f"{table}: 8 train, 2 val\n"
    assert [row["split"] for row in rows_of(table)[10:]] == [""] * 10


def test_a_group_is_not_split(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{at}.jpg,{at % 2},place {at // 4}," for at in range(40)]
    rows[9] += "val"
    table.write_text("\n".join(["name,beach,group,split", *rows]))
    assert main(["labels", "split", str(table)]) == 0
    parts: dict[str, set[str]] = {}
    for row in rows_of(table):
        parts.setdefault(row["group"], set()).add(row["split"])
    assert all(len(part) == 1 for part in parts.values())
    assert parts["place 2"] == {"val"}, "the rest of its group was in val before"
    assert {"train"} in parts.values()


def test_a_split_is_stratified_by_label_and_permanent(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{at}.jpg,{at % 2},0" for at in range(20)]
    table.write_text("\n".join(["name,beach,city", *rows]))
    assert main(["labels", "split", str(table)]) == 0
    val = {row["name"] for row in rows_of(table) if row["split"] == "val"}
    assert len(val) == 4
    assert sum(int(name.removesuffix(".jpg")) % 2 for name in val) == 2
    assert sum(row["split"] == "train" for row in rows_of(table)) == 16

    with table.open("a") as file:
        file.writelines(f"{at}.jpg,1,1,\r\n" for at in range(20, 30))
    assert main(["labels", "split", str(table)]) == 0
    now = {row["name"] for row in rows_of(table) if row["split"] == "val"}
    assert val < now
    assert len(now) == 6
