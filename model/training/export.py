"""Writes a trained network as an artifact folder: LiteRT model, Keras model, head and card."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Card, describe_file, load_card, write_card
from model.artifact.head import HEAD_NAME, Head
from model.engines.footprint import measure
from model.images.decode import PREPROCESSING

LITERT_NAME = "model.tflite"
KERAS_NAME = "model.keras"


def write_artifact(
    network: Any,
    folder: Path,
    fields: dict[str, Any],
    *,
    head: Head | None = None,
    with_keras: bool = True,
    float16: bool = True,
    log: Path | None = None,
    complete: Callable[[Path], object] | None = None,
) -> Card:
    """Write `network` and its card to `folder`, `<name>/<version>`, completely or not at all.

    `network` gives scores or, with a `head`, the features for it.
    `fields` are those of the card that do not follow from the folder, the files and the date.
    `log`, the training log, is copied if it is given. `complete` may add to the new folder before
    it becomes `folder`. An existing folder is replaced once the new one is complete. The Keras
    model, which only GPUs need, can be omitted. The LiteRT model takes any batch size; its weights
    are float16 or float32.

    Raises:
        ArtifactInvalid: LiteRT cannot run the model.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        (fresh / LITERT_NAME).write_bytes(_to_litert(network, float16))
        files = {"litert": describe_file(fresh / LITERT_NAME)}
        if with_keras:
            network.save(fresh / KERAS_NAME)
            files["keras"] = describe_file(fresh / KERAS_NAME)
        if head is not None:
            head.save(fresh / HEAD_NAME)
            files["head"] = describe_file(fresh / HEAD_NAME)
        known = {
            "name": folder.parent.name,
            "version": folder.name,
            "preprocessing": PREPROCESSING,
            "files": files,
            "memory_bytes": measure(fresh / LITERT_NAME),
            "created": datetime.now(UTC).date(),
        }
        if log is not None:
            shutil.copy(log, fresh)
        write_card(Card(**known | fields), fresh)
        if complete is not None:
            complete(fresh)
        card = load_card(fresh)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    return card


def _to_litert(network: Any, float16: bool) -> bytes:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch:
        network.export(scratch, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


def round_to_float16(model: Any) -> None:
    """Round the weights of `model` in place as the export to float16 does.

    The converter folds each batch normalisation into the convolution before it and stores the
    product as float16. Here the product is rounded and divided back, so that the Keras and the
    LiteRT model compute with the same numbers. Otherwise, scores near 0.5 differ by up to 0.1.
    """
    layers = list(leaf_layers(model))
    pairs = {
        layer: layer.input._keras_history.operation
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    for norm, convolution in pairs.items():
        _round_pair(convolution, norm)
    alone = [layer for layer in layers if layer not in pairs.values()]
    for layer in alone:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            for weight in layer.weights:
                weight.assign(_float16(np.asarray(weight)))


def leaf_layers(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def _round_pair(convolution: Any, norm: Any) -> None:
    gamma, beta, mean, variance = (
        np.asarray(weight, np.float64)
        for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    norm.beta.assign(_float16(beta - mean * scale) + mean * scale)
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        scale = scale[:, None]
    folded = np.asarray(convolution.kernel, np.float64) * scale
    convolution.kernel.assign(_float16(folded) / np.where(scale == 0, 1, scale))


def _float16(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)
