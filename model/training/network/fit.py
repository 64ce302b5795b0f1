"""Trains the head on pooled features, then fine-tunes it together with the tuned backbone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import structlog
from numpy.typing import NDArray

from model.training.checkpoints import Arrays, Checkpoints, in_order
from model.training.config import TrainingConfig
from model.training.data.arrays import chosen_rows, predicted, prefetched, release
from model.training.data.augmentation import mix
from model.training.data.dataset import Labels
from model.training.network.build import Network
from model.training.network.features import TrainingSet
from model.training.network.loss import accuracy_of, answer_weights, cross_entropy, make_loss
from model.training.training_log import Epoch, Stage, TrainingLog, from_array

log = structlog.get_logger()

# The features of so many batches may stay in memory; the disk cache of the system keeps more.
RELEASE_BATCHES = 100

Batch = tuple[NDArray[np.float32], Labels]


@dataclass(frozen=True)
class Fit:
    """Trains `network.tuned` in place, on all rows except those where `held_out` (n,) is true."""

    network: Network
    data: TrainingSet
    fold: int
    held_out: NDArray[np.bool_]
    config: TrainingConfig
    checkpoints: Checkpoints
    training_log: TrainingLog

    def run(self) -> tuple[NDArray[np.float32], list[Epoch]]:
        """Train the head alone, then fine-tune; return the held-out scores and the epochs.

        The scores are (n_held_out, n_labels). Held-out rows are used for the log and for early
        stopping only. After a crash, the fit is resumed after the last complete epoch of
        fine-tuning and ends with the same weights: the seed of an epoch follows from its number.
        """
        checkpoint = self.checkpoints.load(self._key)
        if checkpoint:
            epochs = from_array(checkpoint["epochs"])
            self.training_log.add(epochs)
            log.info("fit resumed", fold=self.fold, epoch=epochs[-1].epoch)
        else:
            epochs = self._train_head()
        if self.config.epochs:
            self._fine_tune(epochs, checkpoint)
        return self._score_held_out(), epochs

    @property
    def _key(self) -> str:
        return f"fold-{self.fold}-epoch"

    @property
    def _rows(self) -> NDArray[np.intp]:
        return np.flatnonzero(~self.held_out)

    def _train_head(self) -> list[Epoch]:
        pooled = self.data.pooled
        # Not the head itself, which would be saved with a loss that only training knows.
        head = keras.Model(self.network.head.inputs, self.network.head.outputs)
        self._compile(head, keras.optimizers.Adam(self.config.head_learning_rate))
        copies, rows = (
            grid.ravel() for grid in np.meshgrid(np.arange(len(pooled)), self._rows, indexing="ij")
        )
        epochs = []
        for number in range(self.config.head_epochs):
            random = self._random(Stage.HEAD, number)
            order = random.permutation(len(rows))
            size = 8 * self.config.batch_size
            batches = self._batches(pooled, copies[order], rows[order], size, random)
            epochs.append(self._train(head, Stage.HEAD, number, batches))
        return epochs

    def _fine_tune(self, epochs: list[Epoch], checkpoint: Arrays | None) -> None:
        """Add the missing epochs to `epochs`; `checkpoint` is the state after those present."""
        tuned, config, best_key = self.network.tuned, self.config, f"fold-{self.fold}-best"
        optimizer = keras.optimizers.AdamW(self._schedule(), weight_decay=config.weight_decay)
        self._compile(tuned, optimizer)
        optimizer.build(tuned.trainable_variables)
        variables = [*tuned.weights, *optimizer.variables]
        if checkpoint:
            for variable, value in zip(variables, in_order(checkpoint), strict=True):
                variable.assign(value)
        for number in range(len(epochs) - config.head_epochs, config.epochs):
            if 0 < config.early_stopping_patience <= self._since_best(epochs):
                break
            random = self._random(Stage.FINE_TUNING, number)
            rows = random.permutation(self._rows)
            copies = (number + rows) % len(self.data.copies)
            batches = self._batches(self.data.copies, copies, rows, config.batch_size, random)
            epochs.append(self._train(tuned, Stage.FINE_TUNING, number, batches))
            if config.early_stopping_patience and self._since_best(epochs) == 0:
                self.checkpoints.save(best_key, *tuned.get_weights())
            self.checkpoints.save(self._key, *variables, epochs=np.array(epochs))
        if best := self.checkpoints.load(best_key):
            tuned.set_weights(in_order(best))

    def _since_best(self, epochs: list[Epoch]) -> int:
        """The number of epochs of fine-tuning after the one with the lowest held-out loss."""
        losses = [epoch.held_out_loss for epoch in epochs[self.config.head_epochs :]]
        return len(losses) - 1 - int(np.argmin(losses)) if losses else 0

    def _schedule(self) -> Any:
        step_count = -(-len(self._rows) // self.config.batch_size) * self.config.epochs
        warmup_step_count = step_count // 10
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=step_count - warmup_step_count,
            warmup_target=self.config.initial_learning_rate,
            warmup_steps=warmup_step_count,
        )

    def _compile(self, model: Any, optimizer: Any) -> None:
        activation = self.network.activation
        labels = self.data.labels[self._rows]
        weights = answer_weights(labels, self.config.class_weights, activation)
        model.compile(
            optimizer=optimizer,
            jit_compile=False,
            loss=make_loss(weights, self.config.label_smoothing, activation),
            metrics=[keras.metrics.MeanMetricWrapper(accuracy_of(activation), name="accuracy")],
        )

    def _random(self, stage: Stage, number: int) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, self.fold, stage, number))

    def _batches(
        self,
        features: NDArray[np.floating[Any]],
        copies: NDArray[np.intp],
        rows: NDArray[np.intp],
        size: int,
        random: np.random.Generator,
    ) -> Iterator[Batch]:
        """Blended batches of `size`, of the features (copies[i], rows[i]) for each i."""
        for number, start in enumerate(range(0, len(rows), size)):
            chosen = slice(start, start + size)
            batch = features[copies[chosen], rows[chosen]].astype(np.float32, copy=False)
            labels = self.data.labels[rows[chosen]]
            if number % RELEASE_BATCHES == 0:
                release(features)
            yield mix(batch, labels, self.config.mixup, random)
        release(features)

    def _train(self, model: Any, stage: Stage, number: int, batches: Iterator[Batch]) -> Epoch:
        """Train one epoch on `batches`, and log it."""
        if self.config.dropout:
            seed = self._random(stage, number).integers(2**32, size=2, dtype=np.uint32)
            self.network.head.get_layer("dropout").seed_generator.state.assign(seed)
        started, waited_s = time.monotonic(), 0.0
        totals, count = np.zeros(2), 0
        ready = prefetched(batches)
        while True:
            asked = time.monotonic()
            batch = next(ready, None)
            waited_s += time.monotonic() - asked
            if batch is None:
                break
            figures = model.train_on_batch(*batch, return_dict=True)
            totals += len(batch[1]) * np.array([figures["loss"], figures["accuracy"]])
            count += len(batch[1])
        seconds = time.monotonic() - started
        loss, accuracy = (totals / count).tolist()
        held_out = (np.nan, np.nan)
        if stage is Stage.FINE_TUNING:
            truth, scores = self.data.labels[self.held_out], self._score_held_out()
            activation = self.network.activation
            accurate = float(np.mean(accuracy_of(activation)(truth, scores)))
            held_out = cross_entropy(truth, scores, activation), accurate
        share = waited_s / seconds
        epoch = Epoch(self.fold, stage, number, loss, accuracy, *held_out, seconds, share)
        self.training_log.add([epoch])
        return epoch

    def _score_held_out(self) -> NDArray[np.float32]:
        plain = chosen_rows(self.data.plain, self.held_out)
        scores = predicted(self.network.tuned, plain, self.config.batch_size)
        return np.asarray(scores, np.float32)
