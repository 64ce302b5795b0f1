"""What augmentation changes, and what it leaves."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.training.data.augmentation import AUGMENTERS, EXTRAS, RESAMPLERS, augment


def photos(count: int) -> NDArray[np.uint8]:
    """Smooth pictures with an edge, none symmetric."""
    down, across = np.mgrid[0:64, 0:64]
    base = np.stack([3 * down, 2 * across + down, 255 - 3 * across], axis=-1).clip(0, 255)
    base[20:30, 5:25] = (250, 10, 30)
    return np.stack([np.roll(base, 3 * number, axis=0) for number in range(count)]).astype(np.uint8)


def test_shape_and_type_stay() -> None:
    images = photos(5)
    changed = augment(images, seed=1)
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)


def test_the_same_seed_gives_the_same_copies_and_another_seed_others() -> None:
    images = photos(16)
    assert np.array_equal(augment(images, seed=1), augment(images, seed=1))
    assert not np.array_equal(augment(images, seed=1), augment(images, seed=2))


def test_the_pictures_given_are_not_written_to() -> None:
    images = photos(16)
    augment(images, seed=1)
    assert np.array_equal(images, photos(16))


def test_pictures_are_changed_differently_and_stay_recognisable() -> None:
    images = np.repeat(photos(1), 40, axis=0)
    changed = augment(images, seed=3)
    assert len({image.tobytes() for image in changed}) > 30
    difference = np.abs(changed.astype(float) - images).mean(axis=(1, 2, 3))
    assert difference.mean() < 60


def test_the_tutorials_seven_are_there() -> None:
    assert set(AUGMENTERS) == {"scale", "flip", "shift", "rotate", "shear", "noise", "blur"}


@pytest.mark.parametrize("name", [*AUGMENTERS, *RESAMPLERS, *EXTRAS])
def test_each_augmenter_changes_pictures(name: str) -> None:
    make: Callable[[], Any] = {**AUGMENTERS, **RESAMPLERS, **EXTRAS}[name]
    images = photos(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        changed = make()(images=images)
    assert changed.dtype == np.uint8
    assert changed.shape == images.shape
    for before, after in zip(images, changed, strict=True):
        assert not np.array_equal(before, after)
