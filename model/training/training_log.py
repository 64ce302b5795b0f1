"""Logs a training run, one row per epoch, as CSV and for TensorBoard."""

import csv
import shutil
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

CSV_NAME = "training.csv"
TENSORBOARD_NAME = "tensorboard"

log = structlog.get_logger()


class Stage(IntEnum):
    """The part of the network that is trained in an epoch."""

    HEAD = 0
    FINE_TUNING = 1


class Epoch(NamedTuple):
    """One pass over the pictures of a fit.

    `loss` and `accuracy` are means over the pass, of augmented pictures and with dropout;
    `held_out_loss` and `held_out_accuracy` are those of the held-out fold, NaN if not measured.
    `data_wait_share` is the share of `seconds`, 0 to 1, that the network waited for its next batch.
    """

    fold: int
    stage: Stage
    epoch: int
    loss: float
    accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    seconds: float
    data_wait_share: float

    def cells(self) -> list[str]:
        """The row of the CSV file; the cell of a figure that is NaN is empty."""
        figures = ["" if np.isnan(figure) else f"{figure:.5g}" for figure in self[3:]]
        return [str(self.fold), self.stage.name.lower(), str(self.epoch), *figures]


def from_array(rows: NDArray[np.generic]) -> list[Epoch]:
    """The epochs of which `rows` is an array, (n, n_fields)."""
    return [
        Epoch(int(fold), Stage(int(stage)), int(epoch), *figures)
        for fold, stage, epoch, *figures in rows.tolist()
    ]


class TrainingLog:
    """Writes the epochs of a run into `folder` as they end; the CSV file is `csv_path`.

    Each time the whole CSV file is replaced, so that a resumed run has every row only once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.csv_path = folder, folder / CSV_NAME
        self._epochs: list[Epoch] = []
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / TENSORBOARD_NAME, ignore_errors=True)

    def add(self, epochs: Sequence[Epoch]) -> None:
        """Log `epochs`, which follow those logged before."""
        self._epochs += epochs
        part = self.csv_path.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Epoch._fields, *(one.cells() for one in self._epochs)])
        part.replace(self.csv_path)
        for epoch in epochs:
            self._write_tensorboard(epoch)
            log.info("epoch", **dict(zip(Epoch._fields, epoch.cells(), strict=True)))

    def _write_tensorboard(self, epoch: Epoch) -> None:
        import tensorflow as tf

        # TensorBoard groups by the name of the folder.
        folder = self._folder / TENSORBOARD_NAME / f"{epoch.stage.name.lower()}-{epoch.fold}"
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(step=epoch.epoch):
            for name, figure in zip(Epoch._fields[3:], epoch[3:], strict=True):
                if not np.isnan(figure):
                    tf.summary.scalar(name, figure)
        writer.close()
