"""Fits the head on pooled features, then fine-tunes the blocks above the cut."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import structlog
from numpy.typing import NDArray

from model.training.augmentation import augment
from model.training.config import TrainingConfig
from model.training.dataset import Labels, Pixels
from model.training.network import Network

log = structlog.get_logger()

Features = NDArray[np.float16]


@dataclass(frozen=True)
class TrainingSet:
    """What the untrained network makes of the pictures, computed once and used in every fit.

    `plain` (n, ...) are the trunk's features of the pictures as they are, `copies` (n_copies, n,
    ...) of what is trained on, `pooled` (n_copies, n, 1280) the neck's of the same before any
    fine-tuning, `labels` (n, n_labels).
    """

    plain: Features
    copies: Features
    pooled: NDArray[np.float32]
    labels: Labels

    def subset(self, rows: NDArray[np.bool_]) -> "TrainingSet":
        """The rows where `rows` is true."""
        return TrainingSet(
            self.plain[rows], self.copies[:, rows], self.pooled[:, rows], self.labels[rows]
        )


def make_training_set(
    network: Network, images: Pixels, labels: Labels, config: TrainingConfig
) -> TrainingSet:
    """Runs trunk and neck over `images` and, if the configuration says so, augmented copies."""
    plain = trunk_features(network, images, config)
    copies = plain[None]
    if config.use_augmentation:
        copies = np.empty((config.augmented_copies, *plain.shape), np.float16)
        for number in range(config.augmented_copies):
            changed = augment(images, seed=config.seed * 1000 + number)
            copies[number] = trunk_features(network, changed, config)
            log.info("augmented copy made", number=number + 1, of=config.augmented_copies)
    pooled = [
        network.neck.predict(features, batch_size=config.batch_size, verbose=0)
        for features in copies
    ]
    return TrainingSet(plain, copies, np.stack(pooled), labels)


def trunk_features(network: Network, images: Pixels, config: TrainingConfig) -> Features:
    """The trunk's features of `images`; half precision is plenty and halves the memory."""
    features = network.trunk.predict(images, batch_size=config.batch_size, verbose=0)
    return np.asarray(features, np.float16)


class _Epochs(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches in a new order each epoch, each picture as its next augmented copy."""

    def __init__(self, data: TrainingSet, batch_size: int, seed: int) -> None:
        super().__init__()
        self._copies, self._labels = data.copies, data.labels
        self._batch_size, self._random = batch_size, np.random.default_rng(seed)
        self._epoch = -1
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._order = self._random.permutation(len(self._labels))

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], Labels]:
        rows = self._order[index * self._batch_size :][: self._batch_size]
        copies = (self._epoch + rows) % len(self._copies)
        return self._copies[copies, rows].astype(np.float32), self._labels[rows]


def fit(
    network: Network, data: TrainingSet, held_out: TrainingSet, config: TrainingConfig
) -> NDArray[np.float32]:
    """Trains neck and head in place: the head alone first, then both together.

    `held_out` is looked at for early stopping only. Returns its scores (n, n_labels).
    """
    keras.utils.set_random_seed(config.seed)
    _fit_head(network, data, config)
    if config.epochs:
        _fine_tune(network, data, held_out, config)
    scores = network.tuned.predict(held_out.plain, batch_size=config.batch_size, verbose=0)
    return np.asarray(scores, np.float32)


def _fit_head(network: Network, data: TrainingSet, config: TrainingConfig) -> None:
    _compile(network.head, keras.optimizers.Adam(config.head_learning_rate), config)
    network.head.fit(
        np.concatenate(data.pooled),
        np.tile(data.labels, (len(data.pooled), 1)),
        batch_size=8 * config.batch_size,
        epochs=config.head_epochs,
        verbose=0,
    )


def _fine_tune(
    network: Network, data: TrainingSet, held_out: TrainingSet, config: TrainingConfig
) -> None:
    batches = _Epochs(data, config.batch_size, config.seed)
    step_count = len(batches) * config.epochs
    warmup_step_count = step_count // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=step_count - warmup_step_count,
        warmup_target=config.initial_learning_rate,
        warmup_steps=warmup_step_count,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=config.weight_decay,
        use_ema=config.weight_average > 0,
        ema_momentum=config.weight_average or 0.99,
    )
    _compile(network.tuned, optimizer, config)
    stopping: list[Any] = []
    if config.early_stopping_patience:
        stopping.append(
            keras.callbacks.EarlyStopping(
                patience=config.early_stopping_patience, restore_best_weights=True
            )
        )
    network.tuned.fit(
        batches,
        epochs=config.epochs,
        validation_data=(held_out.plain, held_out.labels) if stopping else None,
        callbacks=stopping,
        verbose=2,
    )


def _compile(model: Any, optimizer: Any, config: TrainingConfig) -> None:
    model.compile(
        optimizer=optimizer,
        jit_compile=False,
        loss=keras.losses.BinaryCrossentropy(label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.BinaryAccuracy(name="binary_accuracy")],
    )
