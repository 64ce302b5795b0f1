"""Computes the features of the pictures once, with the frozen backbone, for use in every fit."""

from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from model.training.checkpoints import Checkpoints
from model.training.config import TrainingConfig
from model.training.data.arrays import Rows, apply, mapped, predicted, prefetched, release
from model.training.data.augmentation import augment
from model.training.data.dataset import Labels, Pixels
from model.training.network.build import Network

log = structlog.get_logger()

Features = NDArray[np.float16]

# Pictures that are augmented at a time; the random numbers of a set of fewer are those of one call.
# Up to four such blocks are in memory, each of 77 MB for pictures of 224 x 224 pixels.
AUGMENTED_ROWS = 512


@dataclass(frozen=True)
class TrainingSet:
    """What a fit is trained on and measured with.

    `plain` (n, ...): features of the unchanged pictures. `copies` (n_copies, n, ...): features of
    the pictures for training. `pooled` (n_copies, n, n_features): the same after the backbone
    before fine-tuning. `labels` (n, n_labels). All but the labels are in mapped files.
    """

    plain: Features | Rows
    copies: Features
    pooled: NDArray[np.float32]
    labels: Labels


def features_of(network: Network, images: Pixels, config: TrainingConfig) -> Features:
    """The outputs of the frozen backbone, in a mapped file in the folder of the run.

    float16 is precise enough and needs half the room.
    """
    shape = (len(images), *network.frozen_backbone.output_shape[1:])
    features: Features = mapped(config.run_path, shape, np.float16)
    model, size = network.frozen_backbone, config.batch_size
    predicted(model, images, size, target=features, shown="features computed")
    return features


def make_training_set(
    network: Network,
    images: Rows,
    plain: Rows,
    labels: Labels,
    config: TrainingConfig,
    checkpoints: Checkpoints,
) -> TrainingSet:
    """Run the backbone over augmented copies of `images`, of which `plain` are the features.

    Without augmentation, the only copy is the picture itself.
    """
    size = config.batch_size
    count = config.augmented_copies if config.use_augmentation else 1
    copies = checkpoints.array("copies", (count, *plain.shape), np.float16)
    pooled = mapped(config.run_path, (count, len(plain), *network.head.input_shape[1:]), np.float32)
    for number in range(count):
        copy, key = copies[number], f"copied-{number}"
        if checkpoints.load(key) is None:
            if config.use_augmentation:
                _augmented_features(network, images, config, number, copy)
            else:
                apply(lambda rows: rows, plain, size, target=copy)
            copies.flush()
            checkpoints.save(key)
        log.info("augmented copies made", number=number + 1, of=count)
        predicted(network.tuned_backbone, copy, size, target=pooled[number])
    return TrainingSet(plain, copies, pooled, labels)


def _augmented_features(
    network: Network, images: Rows, config: TrainingConfig, number: int, target: Features
) -> None:
    """Write the features of an augmented copy to `target`, in blocks of pictures.

    While those of a block are computed, the next one is augmented.
    """
    size = config.batch_size
    block = max(1, AUGMENTED_ROWS // size) * size
    starts = range(0, len(images), block)

    def augmented(start: int) -> Pixels:
        changed = augment(images[start : start + block], config.seed * 1000 + number + start)
        release(images)
        return changed

    for start, changed in zip(starts, prefetched(map(augmented, starts)), strict=True):
        part = target[start : start + len(changed)]
        predicted(network.frozen_backbone, changed, size, target=part)
        if len(images) > block:
            done = start + len(changed)
            log.info("pictures augmented", copy=number + 1, number=done, of=len(images))
