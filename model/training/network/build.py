"""Builds a network of a frozen backbone, a backbone that is fine-tuned, and a head."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.artifact.card import Activation, describe_file
from model.artifact.head import Head
from model.training.backbones import BACKBONES
from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.imagenet import keras_network, load_published


@dataclass(frozen=True)
class Network:
    """The whole model and its parts, which share their weights.

    `full`: uint8 RGB (batch, height, width, 3) -> scores (batch, n_labels), float32 in 0..1.
    `frozen_backbone`: the same pictures -> features, from which fine-tuning starts.
    `tuned_backbone`: those features -> pooled features (batch, n_features).
    `backbone`: the same pictures -> pooled features, by both backbones.
    `head`: pooled features -> scores.
    `tuned`: tuned backbone and head.
    `activation`: that of the scores.
    `base_sha256`: the hash of the file of the base weights, None for random weights.
    """

    full: Any
    frozen_backbone: Any
    tuned_backbone: Any
    backbone: Any
    head: Any
    tuned: Any
    activation: Activation
    base_sha256: str | None = None

    def weights_of_head(self) -> Head:
        """The weights that `head` has now."""
        return Head(*(np.asarray(weight) for weight in self.head.get_weights()))


def build_network(data: DataConfig, training: TrainingConfig) -> Network:
    """A network with base weights and a new head.

    Raises TrainingError if the base weights are missing or do not fit.
    """
    keras.utils.set_random_seed(training.seed)
    backbone = BACKBONES[training.backbone]
    base, base_sha256 = _load_base(data, training)
    first_layer = backbone.blocks[training.fine_tune_from_block - 1]
    fine_tune_from = base.get_layer(first_layer).input
    lower = keras.Model(base.input, fine_tune_from)
    upper = keras.Model(fine_tune_from, base.output)
    lower.trainable = False

    pictures = keras.Input(data.input_shape, dtype="uint8", name="pictures")
    scaled = pictures
    if not backbone.scales_itself:
        scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(pictures)
    frozen_backbone = keras.Model(pictures, lower(scaled, training=False), name="frozen_backbone")

    # Batch normalisation keeps the statistics of ImageNet. `training=False` alone does not
    # achieve this: Keras 3 replaces it by the mode of the outermost model. Nor are blocks dropped
    # at random, as those of EfficientNetV2 are: a run that is resumed must end with the same model.
    for layer in upper.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    features = keras.Input(fine_tune_from.shape[1:], name="features")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(upper(features, training=False))
    tuned_backbone = keras.Model(features, pooled, name="tuned_backbone")

    vector = keras.Input(pooled.shape[1:], name="pooled")
    dropped = keras.layers.Dropout(training.dropout, name="dropout")(vector)
    dense = keras.layers.Dense(len(data.targets), activation=data.activation, name="scores")
    scores = dense(dropped)
    head = keras.Model(vector, scores, name="head")

    features_of_pictures = tuned_backbone(frozen_backbone(pictures))
    network = Network(
        full=keras.Model(pictures, head(features_of_pictures), name="classifier"),
        frozen_backbone=frozen_backbone,
        tuned_backbone=tuned_backbone,
        backbone=keras.Model(pictures, features_of_pictures, name="backbone"),
        head=head,
        tuned=keras.Model(features, head(tuned_backbone(features)), name="tuned"),
        activation=data.activation,
        base_sha256=base_sha256,
    )
    parts = (frozen_backbone, tuned_backbone, network.backbone, head)
    for model in (network.full, *parts, network.tuned):
        model.jit_compile = False  # on CPUs, XLA compiles slowly and runs slower than oneDNN
    return network


def _load_base(data: DataConfig, training: TrainingConfig) -> tuple[Any, str | None]:
    """The network with its base weights, and the SHA-256 of their file."""
    weights = None if training.base_weights == "none" else training.base_weights
    expected = training.base_weights_sha256
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise TrainingError(
            f"base_weights: there is no file {weights}; "
            "write imagenet, none or the path of a .weights.h5 file"
        )
    try:
        if weights == "imagenet":
            name, width = training.backbone, training.backbone_width
            base, path = load_published(data.input_shape, expected, name, width)
            return base, describe_file(path).sha256
        found = describe_file(Path(weights)).sha256 if weights else None
        if expected not in (None, found):
            raise TrainingError(
                f"base_weights_sha256 is {expected}, but {training.base_weights} has the SHA-256 "
                f"{found}: correct the setting, or find out who changed the file"
            )
        with warnings.catch_warnings():
            # Else, layers that the file does not have would start with random weights.
            warnings.filterwarnings("error", "Skipping nested container", UserWarning)
            base = keras_network(
                *(training.backbone, training.backbone_width),
                include_top=False,
                weights=weights,
                input_shape=data.input_shape,
            )
        return base, found
    except TrainingError:
        raise
    except (ValueError, OSError, UserWarning) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"base_weights: {training.base_weights} cannot be loaded: {first_line}. "
            f"Without internet, give the path of a .weights.h5 file of {training.backbone} (alpha "
            f"{training.backbone_width}, no top), or none"
        ) from error
