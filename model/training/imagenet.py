"""MobileNetV2 with its 1,000 classes of ImageNet as an artifact."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.artifact.card import Card, Source
from model.images.decode import PREPROCESSING
from model.training.adopt import wrap
from model.training.export import write_artifact
from model.training.network.float16 import round_to_float16
from model.training.network.published import load_published

CLASSES = 1000
SIZE = (224, 224)
TOP_K = 5
# At this score a class is likelier than all others together.
THRESHOLD = 0.5
# Classes of one name that no other name tells apart, by their place among the 1,000.
CLEARED_UP = {134: "crane (bird)", 517: "crane (machine)", 638: "maillot (tights)"}


def load_network(trunk_path: Path | None, top_path: Path | None) -> Any:
    """MobileNetV2 with its top: downloaded by Keras, or read from these files.

    The top is an .npz of `kernel` (1280, n) and `bias` (n,); of 1,001 classes the first is dropped,
    as it stands for none of them. Raises DownloadFailed.
    """
    if trunk_path is None or top_path is None:
        return load_published()
    trunk = keras.applications.MobileNetV2(include_top=False, weights=trunk_path, pooling="avg")
    dense = keras.layers.Dense(CLASSES, activation="softmax", name="predictions")
    network = keras.Model(trunk.input, dense(trunk.output))
    top = np.load(top_path)
    dense.set_weights([top["kernel"][:, -CLASSES:], top["bias"][-CLASSES:]])
    return network


def class_names(lines: Sequence[str]) -> tuple[str, ...]:
    """Give each class the first of its names, or more of them where two share that one."""
    lines = [line.strip() for line in lines if line.strip()][-CLASSES:]
    first = [line.partition(",")[0] for line in lines]
    shared = {name for name, count in Counter(first).items() if count > 1}
    return tuple(
        CLEARED_UP.get(place, line if name in shared else name)
        for place, (name, line) in enumerate(zip(first, lines, strict=True))
    )


def make_artifact(
    network: Any, labels: tuple[str, ...], folder: Path, sources: tuple[Source, ...]
) -> Card:
    """Write `folder`, <name>/<version>, without the Keras model, which CPUs do not need."""
    full = wrap(network, "tf", SIZE, "softmax")
    round_to_float16(full)
    card = {
        "name": folder.parent.name,
        "version": folder.name,
        "labels": labels,
        "thresholds": (THRESHOLD,) * len(labels),
        "activation": "softmax",
        "top_k": TOP_K,
        "input_size": SIZE,
        "preprocessing": PREPROCESSING,
        "scaling": "tf",
        "sources": sources,
        "created": datetime.now(UTC).date(),
        "notes": "made by scripts/workshop/make_imagenet.py; best for photographs of one thing",
    }
    return write_artifact(full, folder, card, with_keras=False)
