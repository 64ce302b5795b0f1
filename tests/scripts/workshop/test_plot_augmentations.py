"""The grid of augmentations."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.training.data.augmentation import AUGMENTERS, EXTRAS, RESAMPLERS
from scripts.workshop.plot_augmentations import columns, main
from tests.pictures import jpeg


def test_every_step_has_a_column_and_changes_the_picture() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    shown = columns(images, copies=2, seed=3)
    steps = [*AUGMENTERS, *RESAMPLERS, *EXTRAS]
    assert list(shown) == ["original", *steps, "example 1", "example 2"]
    assert np.array_equal(shown["original"], images)
    for step in steps:
        assert shown[step].shape == images.shape
        assert not np.array_equal(shown[step], images), step
    again = columns(images, copies=2, seed=3)
    assert all(np.array_equal(shown[title], again[title]) for title in shown)


def test_the_grid_shows_each_picture_in_its_row(tmp_path: Path) -> None:
    for name, colour in (("a.jpg", (250, 0, 0)), ("b.jpg", (0, 0, 250))):
        Image.new("RGB", (90, 60), colour).save(tmp_path / name)
    pictures = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    output = tmp_path / "grid.png"
    assert main([*pictures, "-o", str(output), "--side", "64", "--copies", "1"]) == 0
    with Image.open(output) as grid:
        column_count = 2 + len({**AUGMENTERS, **RESAMPLERS, **EXTRAS})
        assert grid.size == (column_count * 68 + 4, 2 * 68 + 4 + 18)
        first, second = grid.getpixel((36, 54)), grid.getpixel((36, 122))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[0] > 200 > 50 > first[2]
    assert second[2] > 200 > 50 > second[0]


def test_a_picture_that_cannot_be_read_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1)[:50])
    assert main([str(tmp_path / "a.jpg"), "-o", str(tmp_path / "grid.png")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "grid.png").exists()
