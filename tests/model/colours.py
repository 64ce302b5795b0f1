"""A small artifact whose scores can be calculated by hand, as `float` and as `int8`."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Calibration, Card, Variant, describe_file, load_card, write_card
from model.artifact.head import HEAD_NAME, Head
from model.training.export import write_artifact

HEIGHT, WIDTH = 24, 32
LABELS = ("red", "green", "blue")
# Halves the logits, so that the scores show which calibration was applied.
INT8_CALIBRATION = Calibration(slopes=(0.5,) * 3, offsets=(0.0,) * 3)


def colours_network() -> Any:
    """A network whose scores are the amounts of red, green and blue in an image."""
    import keras

    pictures = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pictures))
    dense = keras.layers.Dense(3, activation="sigmoid")
    network = keras.Model(pictures, dense(means))
    dense.set_weights([np.eye(3) * 8, np.full(3, -4.0)])
    return network


def write_colours_apart(folder: Path) -> Card:
    """Write an artifact whose backbone gives the mean colours, and its head the scores."""
    import keras

    pictures = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pictures))
    fields = {
        "labels": LABELS,
        "thresholds": (0.5, 0.5, 0.5),
        "activation": "sigmoid",
        "input_size": (HEIGHT, WIDTH),
    }
    return write_artifact(keras.Model(pictures, means), folder, fields, head=colours_head(1.0, 3))


def write_head(folder: Path, apart: Path, slope: float, labels: tuple[str, ...]) -> Card:
    """Write another head on the backbone of the artifact in `apart`, with the first labels.

    The logits of `write_colours_apart` are multiplied by `slope`.
    """
    folder.mkdir(parents=True)
    head = colours_head(slope, len(labels))
    head.save(folder / HEAD_NAME)
    card = load_card(apart)
    shutil.copy(apart / card.files["litert"].path, folder)
    files = {"litert": card.files["litert"], "head": describe_file(folder / HEAD_NAME)}
    known = {"name": folder.parent.name, "version": folder.name, "files": files}
    thresholds = (0.5,) * len(labels)
    fields = card.model_dump() | known | {"labels": labels, "thresholds": thresholds}
    write_card(Card(**fields), folder)
    return load_card(folder)


def colours_head(slope: float, count: int) -> Head:
    kernel = 8 * slope * np.eye(3, count)
    return Head(kernel.astype(np.float32), np.full(count, -4 * slope, np.float32))


def write_colours(folder: Path) -> Card:
    """Write the artifact of the network to `folder`, without an int8 file."""
    fields = {
        "labels": LABELS,
        "thresholds": (0.5, 0.5, 0.5),
        "activation": "sigmoid",
        "input_size": (HEIGHT, WIDTH),
    }
    return write_artifact(colours_network(), folder, fields)


def add_int8(folder: Path) -> Card:
    """Quantize the network, and add its int8 file to the artifact in `folder`."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(colours_network())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in pictures(50))
    path = folder / "model.int8.tflite"
    path.write_bytes(converter.convert())
    variant = Variant(**describe_file(path).model_dump(), calibration=INT8_CALIBRATION)
    card = load_card(folder).model_copy(update={"variants": {"int8": variant}})
    write_card(card, folder)
    return card


def add_int8_apart(folder: Path) -> Card:
    """Add a variant to the artifact of `write_colours_apart`: the same file, but for its hash."""
    path = folder / "model.int8.tflite"
    path.write_bytes((folder / "model.tflite").read_bytes() + b"another file")
    variant = Variant(**describe_file(path).model_dump(), calibration=INT8_CALIBRATION)
    card = load_card(folder).model_copy(update={"variants": {"int8": variant}})
    write_card(card, folder)
    return card


def pictures(count: int, seed: int = 1) -> NDArray[np.uint8]:
    """Noise of a different colour in each picture."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 200, (count, 1, 1, 3))
    noise = generator.integers(0, 56, (count, HEIGHT, WIDTH, 3))
    return (colours + noise).astype(np.uint8)


def calculated(images: NDArray[np.uint8], slope: float = 1.0) -> NDArray[np.float64]:
    """The scores of `images`, their logits multiplied by `slope`."""
    scores: NDArray[np.float64] = 1 / (1 + np.exp(slope * (4 - 8 * images.mean(axis=(1, 2)) / 255)))
    return scores
