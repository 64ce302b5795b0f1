"""Arrays in mapped files: they give what arrays in memory give, and take no room there."""

import errno
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from model.training.checkpoints import Checkpoints
from model.training.config import TrainingConfig, TrainingError
from model.training.data import arrays
from model.training.data.arrays import Rows, apply, chosen_rows, mapped, predicted, release
from model.training.data.augmentation import augment
from model.training.network import features
from model.training.network.build import Network

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


def resident_bytes() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(rollup.split("Rss:")[1].split()[0]) * 1024


def test_a_mapped_array_keeps_what_is_written_and_not_in_memory(tmp_path: Path) -> None:
    array = mapped(tmp_path, (100, 1000, 1000), np.uint8)
    assert not list(tmp_path.iterdir()), "the file must vanish with the process"
    before = resident_bytes()
    for number in range(100):
        array[number] = number + 1
    assert resident_bytes() > before + 90_000_000
    release(array)
    assert resident_bytes() < before + 20_000_000
    assert [int(row[-1, -1]) for row in Rows.all_of(array)] == [*range(1, 101)]


def test_a_named_array_has_its_content_again(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path / "checkpoints", "run")
    made.array("copies", (3, 4), np.float16)[1] = 2.5
    again = Checkpoints(tmp_path / "checkpoints", "run").array("copies", (3, 4), np.float16)
    np.testing.assert_array_equal(again, [[0] * 4, [2.5] * 4, [0] * 4])
    other = Checkpoints(tmp_path / "checkpoints", "other").array("copies", (3, 4), np.float16)
    assert not other.any()


def test_a_disk_without_room_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        TrainingError, match=r"no room for 2\.0 GB .*: set runs_path to a folder on"
    ):
        mapped(tmp_path, (2, 1000, 1000, 1000), np.uint8)


def test_rows_are_those_of_an_array() -> None:
    array = np.arange(30).reshape(10, 3)
    mask = np.arange(10) % 3 > 0
    rows = chosen_rows(array, mask)
    inside = np.arange(6) % 2 == 0
    assert (rows.shape, len(rows)) == ((6, 3), 6)
    np.testing.assert_array_equal(rows, array[mask])
    np.testing.assert_array_equal(rows[1:4], array[mask][1:4])
    np.testing.assert_array_equal(list(rows), array[mask])
    np.testing.assert_array_equal(rows[np.array([5, 0])], array[mask][[5, 0]])
    np.testing.assert_array_equal(chosen_rows(rows, inside), array[mask][inside])


@pytest.mark.parametrize("count", [1, 40, 41, 99])
def test_blocks_give_the_same_numbers_as_one_call(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 45)
    keras.utils.set_random_seed(1)
    pixels = keras.Input((9, 9, 3))
    network = keras.Model(pixels, keras.layers.Conv2D(4, 3)(pixels))
    images = np.random.default_rng(1).random((count, 9, 9, 3)).astype(np.float32)
    expected = network.predict(images, 8, verbose=0)
    np.testing.assert_array_equal(predicted(network, images, 8), expected)
    target = mapped(tmp_path, expected.shape, np.float16)
    predicted(network, Rows.all_of(images), 8, target=target)
    np.testing.assert_array_equal(target, expected.astype(np.float16))
    sizes: list[int] = []
    apply(lambda rows: sizes.append(len(rows)) or rows, images, 8)  # type: ignore[func-returns-value]
    assert sum(sizes) == count
    assert {size % 8 for size in sizes[:-1]} <= {0}


def means(network_inputs: tuple[int, int, int]) -> Network:
    """A network whose features are the pixels of a picture, and pooled, its mean colours."""
    pictures = keras.Input(network_inputs, dtype="uint8")
    frozen = keras.Model(pictures, keras.layers.Rescaling(1.0)(pictures))
    values = keras.Input(network_inputs)
    pooled = keras.Model(values, keras.layers.GlobalAveragePooling2D()(values))
    vector = keras.Input((3,))
    head = keras.Model(vector, keras.layers.Dense(1)(vector))
    return Network(head, frozen, pooled, frozen, head, head, "sigmoid")


@pytest.mark.parametrize("copies", [0, 2])
def test_a_training_set_has_the_features_of_one_call(
    copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, shape = means((16, 16, 3)), (20, 16, 16, 3)
    images = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    settings = {"batch_size": 4, "augmented_copies": max(copies, 1), "use_augmentation": copies > 0}
    paths = {"model_path": tmp_path / "a/1", "runs_path": tmp_path / "runs"}
    config = TrainingConfig.model_validate(settings | paths)
    labels = np.zeros((14, 1), np.float32)
    train = np.arange(20) >= 6

    def made(folder: str) -> features.TrainingSet:
        plain = chosen_rows(features.features_of(network, images, config), train)
        checkpoints = Checkpoints(tmp_path / folder, "run")
        rows = chosen_rows(images, train)
        return features.make_training_set(network, rows, plain, labels, config, checkpoints)

    whole = made("whole")
    changed = [augment(images[train], 1000 + number) for number in range(copies)]
    expected = np.array(changed or [images[train]], np.float16)
    np.testing.assert_array_equal(whole.copies, expected)
    np.testing.assert_array_equal(whole.plain, images[train].astype(np.float16))
    np.testing.assert_allclose(
        whole.pooled, expected.mean(axis=(2, 3), dtype=np.float32), rtol=1e-5
    )

    monkeypatch.setattr(arrays, "BLOCK_ROWS", 8)
    in_blocks = made("blocks")
    np.testing.assert_array_equal(in_blocks.copies, whole.copies)
    np.testing.assert_array_equal(in_blocks.pooled, whole.pooled)
    monkeypatch.setattr(features, "augment", None)  # the copies are made once
    np.testing.assert_array_equal(made("blocks").copies, whole.copies)


def test_a_large_set_is_augmented_in_blocks_of_their_own_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "AUGMENTED_ROWS", 10)
    network = means((16, 16, 3))
    one = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    images = np.stack([one] * 16)
    paths = {"model_path": tmp_path / "a/1", "runs_path": tmp_path / "runs"}
    config = TrainingConfig.model_validate({"batch_size": 4, "augmented_copies": 1, **paths})
    rows, checkpoints = Rows.all_of(images), Checkpoints(tmp_path / "checkpoints", "run")
    made = features.make_training_set(
        network, rows, rows, np.zeros((16, 1), np.float32), config, checkpoints
    )
    np.testing.assert_array_equal(made.copies[0, :8], augment(images[:8], 1000))
    np.testing.assert_array_equal(made.copies[0, 8:], augment(images[8:], 1008))
    assert not np.array_equal(made.copies[0, :8], made.copies[0, 8:])
