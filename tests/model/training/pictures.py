"""A tiny data set made by code: pictures that are reddish, bluish, both or neither."""

import csv
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from model.training.backbones import BACKBONES, BackboneName

TARGETS = ["red", "blue"]
SIDE = 48


def write_pictures(folder: Path, count: int, split: bool = True) -> Path:
    """Writes `count` PNGs to folder/images and their labels to folder/labels.csv."""
    images = folder / "images"
    images.mkdir(parents=True)
    random = np.random.default_rng(0)
    csv_path = folder / "labels.csv"
    with csv_path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", *TARGETS] + (["split"] if split else []))
        for number in range(count):
            red, blue = number & 1, number >> 1 & 1
            pixels = random.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[:, :, 0] += 120 * red
            pixels[:, :, 2] += 120 * blue
            Image.fromarray(pixels).save(images / f"{number:03}.png")
            part = ["val" if number % 12 < 4 else "train"] if split else []
            rows.writerow([f"{number:03}.png", red, blue, *part])
    return csv_path


def write_yaml(path: Path, **settings: object) -> Path:
    """Writes `settings` as YAML to `path`."""
    path.write_text(yaml.safe_dump(settings))
    return path


def data_settings(folder: Path) -> dict[str, object]:
    """A data configuration for `write_pictures(folder, …)`."""
    return {
        "input_shape": [SIDE, SIDE, 3],
        "resize_shape": [SIDE, SIDE],
        "images_base_path": str(folder / "images"),
        "targets": TARGETS,
        "image_name_col": "name",
    }


def write_base_weights(
    path: Path,
    pictures: NDArray[np.uint8],
    name: BackboneName = "MobileNetV2",
    width: float = 1.0,
) -> Path:
    """Random weights of a backbone that let the colours of `pictures` (n, h, w, 3) through.

    Batch normalisation learns its statistics from them and keeps values in the linear part of
    the activations. Without either, 17 blocks of random weights leave nothing of a picture.
    """
    import keras

    from model.training.imagenet import keras_network

    keras.utils.set_random_seed(1)
    base = keras_network(
        name, width, include_top=False, weights=None, input_shape=pictures.shape[1:]
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            if not layer.name.lower().endswith(("project_bn", "conv_1_bn", "top_bn")):
                layer.beta.assign(np.full(layer.beta.shape, 3.0))
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    pixels = pictures.astype(np.float32)
    base(pixels if BACKBONES[name].scales_itself else pixels / 127.5 - 1, training=True)
    base.save_weights(path)
    return path


def training_settings(folder: Path) -> dict[str, object]:
    """A training configuration that ends in seconds."""
    return {
        "use_augmentation": True,
        "batch_size": 8,
        "epochs": 2,
        "initial_learning_rate": 1e-5,
        "model_path": str(folder / "out/colours/3"),
        "runs_path": str(folder / "runs"),
        "base_weights": str(folder / "base.weights.h5"),
        "head_epochs": 60,
        "fine_tune_from_block": 14,
        "augmented_copies": 1,
        "folds": 2,
    }
