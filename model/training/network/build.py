"""MobileNetV2 in three parts: a frozen trunk, a neck that can be fine-tuned, a head of sigmoids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.network.published import load_published


@dataclass(frozen=True)
class Network:
    """The whole model and its parts, which share their weights.

    `full`: uint8 RGB (batch, height, width, 3) -> scores (batch, n_labels), float32 in 0..1.
    `trunk`: the same pictures -> features where fine-tuning starts; never trained.
    `neck`: those features -> pooled features (batch, 1280).
    `head`: pooled features -> scores.
    `tuned`: neck and head in one.
    """

    full: Any
    trunk: Any
    neck: Any
    head: Any
    tuned: Any


def build_network(data: DataConfig, training: TrainingConfig) -> Network:
    """A network with base weights loaded and a new head.

    Raises TrainingError if the base weights are missing or do not fit.
    """
    keras.utils.set_random_seed(training.seed)
    base = _load_base(data, training)
    cut = base.get_layer(f"block_{training.fine_tune_from_block}_expand").input
    lower, upper = keras.Model(base.input, cut), keras.Model(cut, base.output)
    lower.trainable = False

    pictures = keras.Input(data.input_shape, dtype="uint8", name="pictures")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(pictures)
    trunk = keras.Model(pictures, lower(scaled, training=False), name="trunk")

    # Batch normalisation keeps to the statistics of ImageNet. `training=False` alone does not
    # reach it: Keras 3 overrides it with the mode of the outermost model.
    for layer in upper.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    features = keras.Input(cut.shape[1:], name="features")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(upper(features, training=False))
    neck = keras.Model(features, pooled, name="neck")

    vector = keras.Input(pooled.shape[1:], name="pooled")
    dropped = keras.layers.Dropout(training.dropout, name="dropout")(vector)
    scores = keras.layers.Dense(len(data.targets), activation="sigmoid", name="scores")(dropped)
    head = keras.Model(vector, scores, name="head")

    network = Network(
        full=keras.Model(pictures, head(neck(trunk(pictures))), name="classifier"),
        trunk=trunk,
        neck=neck,
        head=head,
        tuned=keras.Model(features, head(neck(features)), name="tuned"),
    )
    for model in vars(network).values():
        model.jit_compile = False  # on CPUs XLA compiles for long and runs slower than oneDNN
    return network


def _load_base(data: DataConfig, training: TrainingConfig) -> Any:
    weights = None if training.base_weights == "none" else training.base_weights
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise TrainingError(
            f"base_weights: there is no file {weights}; "
            "write imagenet, none or the path of a .weights.h5 file"
        )
    try:
        if weights == "imagenet":
            return load_published(data.input_shape)
        return keras.applications.MobileNetV2(
            include_top=False, weights=weights, input_shape=data.input_shape
        )
    except (ValueError, OSError) as error:
        raise TrainingError(
            f"base_weights: {training.base_weights} cannot be loaded: {error}. "
            "Without internet, give the path of a .weights.h5 file of MobileNetV2 (alpha 1.0, "
            "no top), or none"
        ) from error
