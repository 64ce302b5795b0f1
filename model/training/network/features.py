"""Computes the features of the pictures once, with the frozen backbone, for use in every fit."""

from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from model.training.checkpoints import Checkpoints
from model.training.config import TrainingConfig
from model.training.data.augmentation import augment
from model.training.data.dataset import Labels, Pixels
from model.training.network.build import Network

log = structlog.get_logger()

Features = NDArray[np.float16]


@dataclass(frozen=True)
class TrainingSet:
    """What a fit is trained on and measured with.

    `plain` (n, ...): features of the unchanged pictures. `copies` (n_copies, n, ...): features of
    the pictures for training. `pooled` (n_copies, n, 1280): the same after the backbone before
    fine-tuning. `labels` (n, n_labels).
    """

    plain: Features
    copies: Features
    pooled: NDArray[np.float32]
    labels: Labels


def features_of(network: Network, images: Pixels, config: TrainingConfig) -> Features:
    """The outputs of the frozen backbone; float16 is precise enough and halves the memory."""
    features = network.frozen_backbone.predict(images, config.batch_size, verbose=0)
    return np.asarray(features, np.float16)


def make_training_set(
    network: Network,
    images: Pixels,
    plain: Features,
    labels: Labels,
    config: TrainingConfig,
    checkpoints: Checkpoints,
) -> TrainingSet:
    """Run the backbone over augmented copies of `images`, of which `plain` are the features.

    Without augmentation, the only copy is the picture itself.
    """
    copies = plain[None]
    if config.use_augmentation:
        copies = np.empty((config.augmented_copies, *plain.shape), np.float16)
        for number in range(config.augmented_copies):
            key = f"copy-{number}"
            if saved := checkpoints.load(key):
                copies[number] = saved["features"]
            else:
                augmented = augment(images, config.seed * 1000 + number)
                copies[number] = features_of(network, augmented, config)
                checkpoints.save(key, features=copies[number])
            log.info("augmented copies made", number=number + 1, of=config.augmented_copies)
    pooled = [network.tuned_backbone.predict(copy, config.batch_size, verbose=0) for copy in copies]
    return TrainingSet(plain, copies, np.stack(pooled), labels)
