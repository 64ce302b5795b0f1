"""How rows and pictures become arrays, and how rows are split."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.images import decode
from model.training.config import DataConfig, TrainingError
from model.training.dataset import load_images, read_annotations, stratified_folds
from tests.model.training.pictures import SIDE, data_settings, write_pictures


def config_for(folder: Path) -> DataConfig:
    return DataConfig.model_validate(data_settings(folder))


def test_a_split_column_is_honoured(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 24)
    annotations = read_annotations(csv_path, config_for(tmp_path))
    val = [
        name for name, is_val in zip(annotations.names, annotations.is_val, strict=True) if is_val
    ]
    assert val == [f"{number:03}.png" for number in (0, 1, 2, 3, 12, 13, 14, 15)]
    assert annotations.labels[:4].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_without_a_split_column_each_label_set_is_split_4_to_1(tmp_path: Path) -> None:
    annotations = read_annotations(write_pictures(tmp_path, 80, split=False), config_for(tmp_path))
    for labels in ([0, 0], [1, 0], [0, 1], [1, 1]):
        rows = (annotations.labels == labels).all(axis=1)
        assert (rows.sum(), annotations.is_val[rows].sum()) == (20, 4)


def test_the_split_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    csv_path = write_pictures(tmp_path, 80, split=False)
    before = read_annotations(csv_path, config_for(tmp_path))
    header, *rows = csv_path.read_text().splitlines()
    random.Random(4).shuffle(rows)
    csv_path.write_text("\n".join([header, *rows]))
    after = read_annotations(csv_path, config_for(tmp_path))
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


HEADER = "name,red,blue,split\n"
GOOD = "000.png,0,0,train\n001.png,1,1,train\n002.png,0,1,val\n003.png,1,0,val\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,red\n000.png,1\n", r"lacks the column\(s\) blue"),
        ("", r"lacks the column\(s\) name, red, blue"),
        (HEADER + GOOD + "004.png,yes,0,val\n", "row 6: red is 'yes'; write 0 or 1"),
        (HEADER + GOOD + "004.png,1\n", "row 6: blue is None; write 0 or 1"),
        (HEADER + GOOD + ",1,0,val\n", "row 6: no picture name"),
        (HEADER + GOOD + "001.png,1,0,val\n", r"row 6: 001\.png is listed twice"),
        (HEADER + GOOD + "004.png,1,0,test\n", "row 6: split is 'test'; write train or val"),
        (HEADER + "000.png,0,0,train\n001.png,1,1,train\n", "the val split needs pictures"),
        (HEADER + GOOD.replace("002.png,0,1", "002.png,0,0"), "val split .* without blue"),
        ('name,red,blue\n"000.png,1,0\n', "cannot be read as CSV"),
    ],
)
def test_a_wrong_row_or_column_is_named(tmp_path: Path, text: str, told: str) -> None:
    csv_path = tmp_path / "labels.csv"
    csv_path.write_text(text)
    with pytest.raises(TrainingError, match=told):
        read_annotations(csv_path, config_for(tmp_path))


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"labels\.csv cannot be read"):
        read_annotations(tmp_path / "labels.csv", config_for(tmp_path))


def test_pictures_are_what_serving_decodes(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    names = ["002.png", "000.png"]
    images = load_images(names, config_for(tmp_path))
    for image, name in zip(images, names, strict=True):
        payload = (tmp_path / "images" / name).read_bytes()
        assert np.array_equal(image, decode(payload, size=(SIDE, SIDE)).pixels)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 60), (200, 100, 50)).save(tmp_path / "images/one.png")
    assert load_images(["one.png"], config_for(tmp_path))[0, 0, 0].tolist() == [200, 100, 50]


def test_every_picture_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "images/bad.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError) as caught:
        load_images(["000.png", "bad.png", "gone.png"], config_for(tmp_path))
    assert "2 pictures" in str(caught.value)
    assert "bad.png: " in str(caught.value)
    assert "gone.png: " in str(caught.value)
    assert "images_base_path" in str(caught.value)
