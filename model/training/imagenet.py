"""Networks trained on ImageNet: their download, their classes, and an artifact of MobileNetV2."""

import json
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.artifact.card import Card, Source
from model.training.adopt import wrap
from model.training.adoption import PixelScaling
from model.training.backbones import BACKBONES, BackboneName
from model.training.export import round_to_float16, write_artifact
from model.training.quantization.quantize import Pixels, add_int8

CLASSES_URL = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
)
CLASSES_MD5 = "c2c37ea517e94d9795004a39431a14cb"
SOCKET_TIMEOUT_S = 30

CLASSES = 1000
SIZE = (224, 224)
TOP_K = 5
# A class with a higher score is more likely than all others together.
THRESHOLD = 0.5
# Classes that have all of their names in common with another class, by index.
UNIQUE_NAMES = {134: "crane (bird)", 517: "crane (machine)", 638: "maillot (tights)"}


class DownloadFailed(OSError):
    """A published file cannot be downloaded; the message gives the address and the reason."""


def keras_network(name: BackboneName, width: float, **options: Any) -> Any:
    """A network of `keras.applications` with `options`; its input is float (batch, h, w, 3)."""
    if len(BACKBONES[name].widths) > 1:
        options["alpha"] = width
    return getattr(keras.applications, name)(**options)


def load_published(
    input_shape: tuple[int, int, int] | None = None,
    sha256: str | None = None,
    name: BackboneName = "MobileNetV2",
    width: float = 1.0,
) -> tuple[Any, Path]:
    """A network with weights of ImageNet, and their file.

    It has no top, but MobileNetV2 without `input_shape` has. `sha256` is the expected hash of the
    file, by default the MD5 that Keras publishes, if any.

    Raises DownloadFailed. A file that does not contain these weights is removed, so that the next
    run downloads it again.
    """
    backbone = BACKBONES[name]
    url = backbone.weights_url(width, SIZE if input_shape is None else input_shape[:2])
    if input_shape is None:
        url = url.replace("_no_top", "")
    network = keras_network(
        name, width, include_top=input_shape is None, weights=None, input_shape=input_shape
    )
    path = _download(url, sha256 or backbone.md5.get(width))
    try:
        network.load_weights(path)
    except (ValueError, OSError) as error:
        path.unlink()
        raise DownloadFailed(
            f"{url} gave a file without these weights, which was removed: run again ({error})"
        ) from error
    return network, path


def class_lines() -> list[str]:
    """The names of the 1,000 classes, in the order of the scores; raises DownloadFailed."""
    index: dict[str, list[str]] = json.loads(_download(CLASSES_URL, CLASSES_MD5).read_text())
    return [index[str(number)][1].replace("_", " ") for number in range(len(index))]


def _download(url: str, file_hash: str | None = None) -> Path:
    """Return the path of a file in Keras's cache, downloaded if none with this hash is there.

    `file_hash` is an MD5 or a SHA-256.
    """
    previous_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT_S)  # Keras sets none
    try:
        return Path(keras.utils.get_file(origin=url, cache_subdir="models", file_hash=file_hash))
    except Exception as error:  # Keras raises no narrower one
        raise DownloadFailed(f"{url} cannot be downloaded ({error}): try again") from error
    finally:
        socket.setdefaulttimeout(previous_s)


def load_network(backbone_path: Path | None, top_path: Path | None) -> Any:
    """MobileNetV2 with its top, downloaded by Keras or read from these files.

    The top is an .npz of `kernel` (1280, n) and `bias` (n,). Of 1,001 classes the first is dropped,
    as it means background. Raises DownloadFailed.
    """
    if backbone_path is None or top_path is None:
        return load_published()[0]
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
    network: Any,
    labels: tuple[str, ...],
    folder: Path,
    sources: tuple[Source, ...],
    pictures: Pixels | None = None,
) -> Card:
    """Write `folder`, `<name>/<version>`, without the Keras model, which CPUs do not need.

    With `pictures`, uint8 (n, *SIZE, 3), it gets an int8 variant if that keeps its bounds.
    """
    full = wrap(network, PixelScaling(scaling="tf"), SIZE, "softmax")
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

    def add(fresh: Path) -> None:
        if pictures is not None:
            add_int8(full, fresh, pictures[::2], pictures[1::2])

    return write_artifact(full, folder, fields, with_keras=False, complete=add)
