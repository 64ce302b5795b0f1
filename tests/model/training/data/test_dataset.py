"""How rows and pictures become arrays, what is wrong with them, and how rows are split."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.images.decode import decode
from model.training.config import DataConfig, TrainingError
from model.training.data.dataset import (
    Annotations,
    DataProblems,
    load_images,
    read_annotations,
    read_data,
    stratified_folds,
)
from model.training.data.near_duplicates import near_duplicates
from model.training.data.table import read_table
from tests.model.training.pictures import SIDE, data_settings, write_pictures


def config_for(folder: Path) -> DataConfig:
    return DataConfig.model_validate(data_settings(folder))


def annotations_of(csv_path: Path) -> Annotations:
    """The rows of `csv_path`, which must all be correct."""
    problems = DataProblems(csv_path)
    annotations = read_annotations(csv_path, config_for(csv_path.parent), problems)
    problems.raise_errors()
    return annotations


def test_a_split_column_is_honoured(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 24)
    annotations = annotations_of(csv_path)
    val = [
        name for name, is_val in zip(annotations.names, annotations.is_val, strict=True) if is_val
    ]
    assert val == [f"{number:03}.png" for number in (0, 1, 2, 3, 12, 13, 14, 15)]
    assert annotations.labels[:4].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_without_a_split_column_each_label_set_is_split_4_to_1(tmp_path: Path) -> None:
    annotations = annotations_of(write_pictures(tmp_path, 80, split=False))
    for labels in ([0, 0], [1, 0], [0, 1], [1, 1]):
        rows = (annotations.labels == labels).all(axis=1)
        assert (rows.sum(), annotations.is_val[rows].sum()) == (20, 4)


def test_the_split_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 80, split=False)
    before = annotations_of(csv_path)
    header, *rows = csv_path.read_text().splitlines()
    random.Random(4).shuffle(rows)
    csv_path.write_text("\n".join([header, *rows]))
    after = annotations_of(csv_path)
    assert before.names == after.names
    assert before.is_val.tolist() == after.is_val.tolist()
    assert before.labels.tolist() == after.labels.tolist()


def test_folds_hold_every_label_set_evenly() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    labels = np.array([[number % 2, number % 10 == 0] for number in range(100)], np.float32)
    folds = stratified_folds(names, labels, 4)
    for label_set in np.unique(labels, axis=0):
        counts = np.bincount(folds[(labels == label_set).all(axis=1)], minlength=4)
        assert counts.max() - counts.min() <= 1


def test_the_pictures_of_a_group_are_in_one_fold(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(100)]
    labels = np.array([[number % 2, number % 10 == 0] for number in range(100)], np.float32)
    groups = np.arange(100) // 5 * 5
    folds = stratified_folds(names, labels, 4, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert np.bincount(folds).tolist() == [25] * 4
    reverse = stratified_folds(names[::-1], labels[::-1], 4, groups[::-1])
    assert reverse[::-1].tolist() == folds.tolist()


def with_groups(csv_path: Path, groups: dict[int, str]) -> None:
    """Add a column `group` to a table, by the index of the row."""
    header, *rows = csv_path.read_text().splitlines()
    rows = [f"{row},{groups.get(index, '')}" for index, row in enumerate(rows)]
    csv_path.write_text("\n".join([f"{header},group", *rows]))


def test_the_pictures_of_a_group_are_in_one_split(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 80, split=False)
    with_groups(csv_path, {number: f"place {number // 8}" for number in range(8, 64)})
    annotations, _, warnings = read_data(csv_path, config_for(tmp_path))
    assert warnings == []
    for group in set(annotations.groups):
        assert len(set(annotations.is_val[annotations.groups == group])) == 1
    assert len(set(annotations.groups)) == 8 + 16 + 7
    assert 8 <= annotations.is_val.sum() <= 32


def test_a_group_in_both_splits_is_an_error(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 24)
    with_groups(csv_path, {2: "place", 5: "place"})
    message = r"row 7 \(005\.png\) and row 4 \(002\.png\) have the same group, but one is in train"
    with pytest.raises(TrainingError, match=message):
        read_data(csv_path, config_for(tmp_path))


def test_the_same_picture_twice_is_in_one_split_and_one_group(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 40, split=False)
    with csv_path.open("a") as file:
        for number in range(40):
            copy_picture(tmp_path, f"{number:03}.png", f"again{number:03}.bmp")
            file.write(f"again{number:03}.bmp,{number & 1},{number >> 1 & 1}\n")
    annotations, _, _ = read_data(csv_path, config_for(tmp_path))
    assert len(set(annotations.groups)) == 40
    assert 0 < annotations.is_val.sum() < 40


def test_pictures_that_are_nearly_the_same_are_found() -> None:
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (6, 8, 8, 3), np.uint8)
    images = np.stack([np.asarray(Image.fromarray(one).resize((SIDE, SIDE))) for one in coarse])
    brighter = np.minimum(images[2].astype(int) + 20, 255).astype(np.uint8)
    images = np.concatenate([images, brighter[None]])
    features = random.random((7, 20))
    features[6] = features[2] + 0.01
    assert near_duplicates(images, features) == [(6, 2)]
    features[6] = 1 - features[2]
    assert near_duplicates(images, features) == [], "the features show other things"


HEADER = "name,red,blue,split\n"
GOOD = "000.png,0,0,train\n001.png,1,1,train\n002.png,0,1,val\n003.png,1,0,val\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,red\n000.png,1\n", r"lacks the column\(s\) blue"),
        (
            "name,crimson,blue\n000.png,1,0\n",
            r"lacks the column\(s\) red; it has name, crimson, blue",
        ),
        ("", "is empty"),
        ("name,red,blue\n", "has a header and no rows"),
        ("name,red,blue\n,,\n", "has a header and no rows"),
        ("name;red;blue\n000.png;1;0\n", "separated by semicolons or tabs: save it with commas"),
        ("name\tred\tblue\n000.png\t1\t0\n", "separated by semicolons or tabs"),
        ("name,red,blue,red\n000.png,1,0,0\n", "has two columns of the same name"),
        ('name,red,blue\n"000.png,1,0\n', "line 2: the row that begins there is not CSV"),
        (
            "name,red,blue,note\n"
            '000.png,1,0,"10 inch\n001.png,1,1,plain\n002.png,0,1,plain\n003.png,0,1,12 inch"\n',
            "line 2, column 'note': the cell holds whole rows: is a quotation mark",
        ),
        (
            'note,name,red,blue\nx,000.png,1,0\n"10 inch,001.png,1,1\n12 inch",002.png,0,1\n',
            "line 3, column 'note': the cell holds whole rows",
        ),
        ('name,red,blue,note\ngone.png,1,0,"1, 2\n3, 4"\n', "row 2: there is no picture"),
        ("name,red,blue\n" + "x" * 200_000, "line 2: .* more than 131,072 characters: shorten"),
        ("<!DOCTYPE html>", "is a page of HTML or XML: save it as CSV"),
        ("PK\3\4", "is a workbook or a zip archive: save it as CSV"),
        ("name,red,blue\n0\0.png,1,0\n", "row 2: .* cannot be read .*: replace the picture"),
        (HEADER + GOOD + "004.png,yes,0,val\n", "row 6: column red is 'yes': write 0 or 1"),
        (HEADER + GOOD + "004.png,1\n", "row 6: fewer cells than the header: add"),
        (
            HEADER + GOOD + "004.png,1,0,val,x\n",
            "row 6: more cells than the header: name each .* in quotes",
        ),
        (HEADER + GOOD + ",1,0,val\n", "row 6: column name is empty: write the file name"),
        (HEADER + GOOD + "001.png,1,0,val\n", r"row 6: 001\.png is already in row 3: remove"),
        (HEADER + GOOD + "004.png,1,0,test\n", "row 6: column split is 'test': write train or val"),
        (HEADER + "000.png,0,0,train\n001.png,1,1,train\n", "val split has no picture with red"),
        (HEADER + GOOD.replace("002.png,0,1", "002.png,0,0"), "val split .* with blue"),
        (HEADER + GOOD.replace("000.png,0,0", "000.png,0,1"), "train .* without blue"),
        (
            HEADER + GOOD + "gone.png,1,0,val\n",
            r"row 6: there is no picture .*gone\.png: correct images_base_path",
        ),
        (HEADER + GOOD + "bad.png,1,0,val\n", r"row 6: .*bad\.png cannot be read \(not_an_image"),
    ],
)
def test_a_wrong_row_or_column_is_named(tmp_path: Path, text: str, message: str) -> None:
    csv_path = write_pictures(tmp_path, 4)
    (tmp_path / "images/bad.png").write_bytes(b"not a picture")
    csv_path.write_text(text)
    with pytest.raises(TrainingError, match=message) as caught:
        read_data(csv_path, config_for(tmp_path))
    assert str(csv_path) in str(caught.value)


def test_a_folder_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 4)
    (tmp_path / "images").rename(tmp_path / "photos")
    with pytest.raises(TrainingError, match=r"there is no folder .*images: correct") as caught:
        read_data(csv_path, config_for(tmp_path))
    assert "row " not in str(caught.value)


def test_empty_columns_and_rows_at_the_end_are_left_out(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 4)
    plain = read_table(csv_path)
    csv_path.write_text(csv_path.read_text().replace("\n", ",,\n") + "\n\n")
    assert read_table(csv_path) == plain


def test_a_csv_in_another_encoding_is_distinguished_from_a_broken_one(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 4)
    csv_path.write_text(csv_path.read_text(), encoding="utf-16")
    with pytest.raises(TrainingError, match="is not UTF-8 but UTF-16: save it as CSV in UTF-8"):
        read_data(csv_path, config_for(tmp_path))


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 4)
    csv_path.write_bytes(csv_path.read_bytes().replace(b"001.png", b"\xfc.png"))
    with pytest.raises(TrainingError, match=r"line 3: the byte 0xFC is not UTF-8"):
        read_data(csv_path, config_for(tmp_path))


def test_a_label_whose_rows_are_wrong_is_not_reported_as_missing(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 4)
    csv_path.write_text(HEADER + GOOD.replace(",1,", ",1.5,"))
    with pytest.raises(TrainingError) as caught:
        read_data(csv_path, config_for(tmp_path))
    assert str(caught.value).splitlines() == [
        f"{csv_path}: 3 errors",
        "  row 3: column red is '1.5': write 0 or 1",
        "  row 4: column blue is '1.5': write 0 or 1",
        "  row 5: column red is '1.5': write 0 or 1",
    ]


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"labels\.csv does not exist: give"):
        read_data(tmp_path / "labels.csv", config_for(tmp_path))


def test_everything_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    (tmp_path / "images/003.png").unlink()
    with csv_path.open("a") as file:
        file.write("\n".join(f"more{number}.png,2,0,train" for number in range(30)))
    with pytest.raises(TrainingError) as caught:
        read_data(csv_path, config_for(tmp_path))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{csv_path}: 31 errors"
    assert lines[1] == "  row 14: column red is '2': write 0 or 1"
    assert (len(lines), lines[-1]) == (22, "  and 11 more")


def copy_picture(folder: Path, name: str, as_name: str) -> None:
    """The same picture in another file format, so that only its pixels are the same."""
    with Image.open(folder / "images" / name) as picture:
        picture.save(folder / "images" / as_name)


def test_a_picture_in_both_splits_is_an_error_whatever_its_name_and_format(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    copy_picture(tmp_path, "005.png", "again.bmp")
    with csv_path.open("a") as file:
        file.write("again.bmp,1,0,val\n")
    message = (
        r"row 14 \(again\.bmp\) is the same picture as row 7 \(005\.png\), but one is in train"
    )
    with pytest.raises(TrainingError, match=message):
        read_data(csv_path, config_for(tmp_path))


def test_a_picture_labelled_in_two_ways_is_an_error(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    copy_picture(tmp_path, "005.png", "again.bmp")
    with csv_path.open("a") as file:
        file.write("again.bmp,1,1,train\n")
    with pytest.raises(TrainingError, match="their labels differ"):
        read_data(csv_path, config_for(tmp_path))


def test_a_label_with_one_picture_to_train_on_is_an_error_before_training(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    header, *rows = csv_path.read_text().splitlines()
    splits = [row.split(",")[3] for row in rows]
    rare = {splits.index("train"), splits.index("val")}
    rows = [f"{row},{int(number in rare)}" for number, row in enumerate(rows)]
    csv_path.write_text("\n".join([f"{header},rare", *rows]))
    config = config_for(tmp_path)
    config = config.model_copy(update={"targets": (*config.targets, "rare")})
    with pytest.raises(TrainingError, match="pictures with rare of the train split are all in one"):
        read_data(csv_path, config)


def test_fewer_pictures_than_folds_are_an_error_before_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="for 40 folds: add some"):
        read_data(write_pictures(tmp_path, 12), config_for(tmp_path), folds=40)


def guess(csv_path: Path, guessed: dict[int, str], left_out: frozenset[int] = frozenset()) -> None:
    """Add the columns `guessed` and `left_out` to a table, by the index of the row."""
    header, *rows = csv_path.read_text().splitlines()
    rows = [
        f"{row},{guessed.get(index, '')},{'yes' * (index in left_out)}"
        for index, row in enumerate(rows)
    ]
    csv_path.write_text("\n".join([f"{header},guessed,left_out", *rows]))


def test_labels_that_nobody_confirmed_are_not_used_unless_the_configuration_says_so(
    tmp_path: Path,
) -> None:
    csv_path = write_pictures(tmp_path, 24)
    guess(csv_path, {0: "yes", 5: "blue;sea", 7: "sea"}, left_out=frozenset({8}))
    annotations, _, warnings = read_data(csv_path, config_for(tmp_path))
    assert set(range(24)) - {int(name[:3]) for name in annotations.names} == {0, 5, 8}
    assert annotations.rows[:3] == (3, 4, 5)
    assert warnings[:2] == [
        "1 rows are not used: their pictures are left out",
        "2 rows with guessed labels are not used: confirm the labels with piqueue label, or set "
        "use_guessed",
    ]
    assert not any("unused columns" in warning for warning in warnings)
    config = config_for(tmp_path).model_copy(update={"use_guessed": True})
    assert len(read_data(csv_path, config)[0].names) == 23


def test_a_table_of_guesses_cannot_be_trained_on(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    guess(csv_path, dict.fromkeys(range(12), "yes"))
    with pytest.raises(TrainingError, match="12 rows with guessed labels are not used: confirm"):
        read_data(csv_path, config_for(tmp_path))
    guess_all_but_one = csv_path.read_text().replace("yes", "", 1)
    csv_path.write_text(guess_all_but_one)
    with pytest.raises(TrainingError, match="warning: 11 rows with guessed labels are not used"):
        read_data(csv_path, config_for(tmp_path))


def test_irregularities_are_warnings(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    copy_picture(tmp_path, "005.png", "again.bmp")
    header, *rows = csv_path.read_text().splitlines()
    rows = [*(f"{row},web,1,here" for row in rows), ",,,,,,", "again.bmp,1,0,train,web,1,"]
    csv_path.write_text("\n".join([f"{header},source,green,place", *rows]))
    annotations, images, warnings = read_data(csv_path, config_for(tmp_path))
    assert (len(annotations.names), len(images)) == (13, 13)
    assert warnings == [
        "row 14 is empty and is ignored",
        "column green looks like a label but is not used: add it to targets?",
        "unused columns: source, place",
        "only 5 pictures of the train split have red: add some",
        "only 4 pictures of the train split have blue: add some",
        "row 15 (again.bmp) is the same picture as row 7 (005.png) and counts twice",
    ]


def test_pictures_are_what_serving_decodes(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 12)
    annotations, images, _ = read_data(csv_path, config_for(tmp_path))
    for image, name in zip(images, annotations.names, strict=True):
        payload = (tmp_path / "images" / name).read_bytes()
        assert np.array_equal(image, decode(payload, size=(SIDE, SIDE)).pixels)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 4)
    Image.new("RGB", (60, 60), (200, 100, 50)).save(tmp_path / "images/000.png")
    images = load_images(annotations_of(csv_path), config_for(tmp_path), DataProblems(csv_path))
    assert images[0, 0, 0].tolist() == [200, 100, 50]
