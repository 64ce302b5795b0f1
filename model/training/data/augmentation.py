"""Changes training data at random: pictures with imgaug, and batches of features by mixup."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

if not hasattr(np, "sctypes"):
    # imgaug 0.4 (its last release) reads np.sctypes on import, which NumPy 2 does not have.
    np.sctypes = {  # type: ignore[attr-defined]
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
        "float": [np.float16, np.float32, np.float64],
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
"""Loss of detail, so that a label cannot be inferred from the resolution of its source; each used
with probability 0.3."""

EXTRAS: dict[str, Any] = {
    "crop": lambda: iaa.Crop(percent=(0, 0.15), keep_size=True),
    "mirror": lambda: iaa.Fliplr(1.0),
    "brightness": lambda: iaa.MultiplyAndAddToBrightness(mul=(0.85, 1.15), add=(-12, 12)),
    "saturation": lambda: iaa.MultiplySaturation((0.75, 1.25)),
}
"""Not in the tutorial: differences between photographers; each used with probability 0.4."""


def augment(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Changed copies of `images`, uint8 RGB (n, height, width, 3), the same for the same seed."""
    steps = [
        iaa.Sometimes(probability, make())
        for probability, group in ((0.1, AUGMENTERS), (0.3, RESAMPLERS), (0.4, EXTRAS))
        for make in group.values()
    ]
    return apply(iaa.Sequential(steps, random_order=True), images, seed)


def apply(augmenter: Any, images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The result of `augmenter` for `images`, the same for the same seed."""
    augmenter.seed_(seed)  # reaches every step, which the seed of the constructor does not
    imgaug.seed(seed)  # for the colour space in which the brightness is changed
    with warnings.catch_warnings():
        # imgaug calls ImageIO in a deprecated way when it compresses.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(augmenter(images=images), np.uint8)


def mix(
    features: NDArray[np.float32],
    labels: NDArray[np.float32],
    strength: float,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blend each of `features` (batch, ...) and of `labels` (batch, n_labels) with another one.

    The share of the other is drawn from Beta(strength, strength), and is at most a half; a
    strength of 0 changes nothing.

    Sources: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization; Verma et al. 2019,
    Manifold Mixup, for features instead of pixels.
    """
    if not strength:
        return features, labels
    others = random.permutation(len(features))
    share = random.beta(strength, strength, len(features)).astype(np.float32)
    share = np.minimum(share, 1 - share)

    def blend(values: NDArray[np.float32]) -> NDArray[np.float32]:
        shares = share.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(values + shares * (values[others] - values), np.float32)

    return blend(features), blend(labels)
