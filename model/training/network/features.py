"""What the untrained network makes of the pictures, computed once and used in every fit."""

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
    """`plain` (n, ...) are the trunk's features of the pictures as they are, `copies` (n_copies,
    n, ...) of what is trained on, `pooled` (n_copies, n, 1280) the neck's of the same before any
    fine-tuning, `labels` (n, n_labels).
    """

    plain: Features
    copies: Features
    pooled: NDArray[np.float32]
    labels: Labels


def make_training_set(
    network: Network, images: Pixels, labels: Labels, config: TrainingConfig, memory: Checkpoints
) -> TrainingSet:
    """Runs trunk and neck over `images` and, if the configuration says so, augmented copies."""
    plain = trunk_features(network, images, config)
    copies = plain[None]
    if config.use_augmentation:
        copies = np.empty((config.augmented_copies, *plain.shape), np.float16)
        for number in range(config.augmented_copies):
            copies[number] = _copy(network, images, number, config, memory)
            log.info("augmented copy made", number=number + 1, of=config.augmented_copies)
    pooled = [
        network.neck.predict(features, batch_size=config.batch_size, verbose=0)
        for features in copies
    ]
    return TrainingSet(plain, copies, np.stack(pooled), labels)


def _copy(
    network: Network, images: Pixels, number: int, config: TrainingConfig, memory: Checkpoints
) -> Features:
    key = f"copy-{number}"
    if kept := memory.load(key):
        return np.asarray(kept["features"], np.float16)
    changed = augment(images, seed=config.seed * 1000 + number)
    features = trunk_features(network, changed, config)
    memory.save(key, features=features)
    return features


def trunk_features(network: Network, images: Pixels, config: TrainingConfig) -> Features:
    """The trunk's features of `images`; half precision is plenty and halves the memory."""
    features = network.trunk.predict(images, batch_size=config.batch_size, verbose=0)
    return np.asarray(features, np.float16)
