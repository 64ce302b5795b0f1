"""Makes an artifact of MobileNetV2 with its 1,000 classes of ImageNet."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.artifact.card import Card, Source
from model.training.adopt import wrap
from model.training.export import round_to_float16, write_artifact
from model.training.network.published import load_published

CLASSES = 1000
SIZE = (224, 224)
TOP_K = 5
# A class with a higher score is more likely than all others together.
THRESHOLD = 0.5
# Classes that have all of their names in common with another class, by index.
UNIQUE_NAMES = {134: "crane (bird)", 517: "crane (machine)", 638: "maillot (tights)"}


def load_network(backbone_path: Path | None, top_path: Path | None) -> Any:
    """MobileNetV2 with its top, downloaded by Keras or read from these files.

    The top is an .npz of `kernel` (1280, n) and `bias` (n,). Of 1,001 classes the first is dropped,
    as it means background. Raises DownloadFailed.
    """
    if backbone_path is None or top_path is None:
        return load_published()
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights=backbone_path, pooling="avg"
    )
    dense = keras.layers.Dense(CLASSES, activation="softmax", name="predictions")
    network = keras.Model(backbone.input, dense(backbone.output))
    top = np.load(top_path)
    dense.set_weights([top["kernel"][:, -CLASSES:], top["bias"][-CLASSES:]])
    return network


def class_names(lines: Sequence[str]) -> tuple[str, ...]:
    """The first name of each class, or all of its names if the first is shared with another."""
    lines = [line.strip() for line in lines if line.strip()][-CLASSES:]
    first = [line.partition(",")[0] for line in lines]
    shared = {name for name, count in Counter(first).items() if count > 1}
    return tuple(
        UNIQUE_NAMES.get(index, line if name in shared else name)
        for index, (name, line) in enumerate(zip(first, lines, strict=True))
    )


def make_artifact(
    network: Any, labels: tuple[str, ...], folder: Path, sources: tuple[Source, ...]
) -> Card:
    """Write `folder`, `<name>/<version>`, without the Keras model, which CPUs do not need."""
    full = wrap(network, "tf", SIZE, "softmax")
    round_to_float16(full)
    fields = {
        "labels": labels,
        "thresholds": (THRESHOLD,) * len(labels),
        "activation": "softmax",
        "top_k": TOP_K,
        "input_size": SIZE,
        "sources": sources,
        "notes": "made by scripts/workshop/make_imagenet.py; best for photographs of one thing",
    }
    return write_artifact(full, folder, fields, with_keras=False)
