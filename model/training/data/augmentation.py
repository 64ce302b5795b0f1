"""Random changes to training pictures, with imgaug."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

if not hasattr(np, "sctypes"):
    # imgaug 0.4 (its last release) reads np.sctypes on import; NumPy 2 dropped it.
    np.sctypes = {  # type: ignore[attr-defined]
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
        "float": [np.float16, np.float32, np.float64],
        "complex": [np.complex64, np.complex128],
        "others": [bool, object, bytes, str, np.void],
    }

import imgaug
import imgaug.augmenters as iaa

AUGMENTERS: dict[str, Any] = {
    "scale": lambda: iaa.Affine(scale=(0.8, 1.25), mode="reflect"),
    "flip": lambda: iaa.Fliplr(1.0),
    "shift": lambda: iaa.Affine(
        translate_percent={"x": (-0.15, 0.15), "y": (-0.15, 0.15)}, mode="reflect"
    ),
    "rotate": lambda: iaa.Affine(rotate=(-15, 15), mode="reflect"),
    "shear": lambda: iaa.Affine(shear=(-10, 10), mode="reflect"),
    "noise": lambda: iaa.AdditiveGaussianNoise(scale=(2, 15), per_channel=0.5),
    "blur": lambda: iaa.GaussianBlur(sigma=(0.3, 1.5)),
}
"""The tutorial's seven, each used with probability 0.1."""

RESAMPLERS: dict[str, Any] = {
    "shrink": lambda: iaa.KeepSizeByResize(iaa.Resize((0.3, 0.9)), interpolation="cubic"),
    "recompress": lambda: iaa.JpegCompression(compression=(15, 75)),
}
"""Loss of detail, so that the size of a source's files tells nothing; each with probability 0.3."""

EXTRAS: dict[str, Any] = {
    "crop": lambda: iaa.Crop(percent=(0, 0.15), keep_size=True),
    "mirror": lambda: iaa.Fliplr(1.0),
    "brightness": lambda: iaa.MultiplyAndAddToBrightness(mul=(0.85, 1.15), add=(-12, 12)),
    "saturation": lambda: iaa.MultiplySaturation((0.75, 1.25)),
}
"""Beyond the tutorial: how photographers differ; each with probability 0.4."""


def augment(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Changed copies of `images`, uint8 RGB (n, height, width, 3), the same for the same seed."""
    steps = [
        iaa.Sometimes(probability, make())
        for probability, group in ((0.1, AUGMENTERS), (0.3, RESAMPLERS), (0.4, EXTRAS))
        for make in group.values()
    ]
    return apply(iaa.Sequential(steps, random_order=True), images, seed)


def apply(augmenter: Any, images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """What `augmenter` makes of `images`, the same for the same seed."""
    augmenter.seed_(seed)  # reaches every step, as the constructor's seed does not,
    imgaug.seed(seed)  # but for the colour space that brightness is changed in
    with warnings.catch_warnings():
        # imgaug calls ImageIO the old way when it re-compresses.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(augmenter(images=images), np.uint8)
