"""The log of a run: one row an epoch, as a plain CSV and for TensorBoard."""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from enum import IntEnum
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

CSV_NAME = "training.csv"
TENSORBOARD_NAME = "tensorboard"

log = structlog.get_logger()


class Stage(IntEnum):
    """What was trained in an epoch."""

    HEAD = 0
    FINE_TUNING = 1


@dataclass(frozen=True)
class Epoch:
    """One pass over the pictures of a fit.

    `loss` and `accuracy` are means over the pass, of the pictures as augmented and with dropout;
    `held_out_loss` and `held_out_accuracy` those of the fold that the fit never sees, NaN where
    that was not looked at. `data_wait_share` is the part of `seconds` that the network waited
    for its next batch, 0 to 1.
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


_COLUMNS = tuple(field.name for field in fields(Epoch))
_PLACE = _COLUMNS[:3]


class TrainingLog:
    """Writes the epochs of a run into `folder` as they end.

    The CSV is written anew each time, so that a run that goes on after a crash leaves no row twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._epochs: list[Epoch] = []
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / TENSORBOARD_NAME, ignore_errors=True)

    @property
    def csv_path(self) -> Path:
        """The CSV file."""
        return self._folder / CSV_NAME

    def add(self, epochs: Sequence[Epoch]) -> None:
        """Log `epochs`, which follow those logged before."""
        self._epochs += epochs
        rows = [_cells(epoch) for epoch in self._epochs]
        part = self.csv_path.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
        part.replace(self.csv_path)
        for epoch in epochs:
            self._show(epoch)
            log.info("epoch", **dict(zip(_COLUMNS, _cells(epoch), strict=True)))

    def _show(self, epoch: Epoch) -> None:
        """Write an epoch for TensorBoard, which groups by the name of the folder."""
        import tensorflow as tf

        folder = self._folder / TENSORBOARD_NAME / f"{epoch.stage.name.lower()}-{epoch.fold}"
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(step=epoch.epoch):
            for figure, value in asdict(epoch).items():
                if figure not in _PLACE and not np.isnan(value):
                    tf.summary.scalar(figure, value)
        writer.close()


def _cells(epoch: Epoch) -> list[str]:
    """An epoch as a row of the CSV; a figure that there is not is empty."""
    place = [str(epoch.fold), epoch.stage.name.lower(), str(epoch.epoch)]
    figures = astuple(epoch)[len(_PLACE) :]
    return place + ["" if np.isnan(figure) else f"{figure:.5g}" for figure in figures]


def to_array(epochs: Sequence[Epoch]) -> NDArray[np.float64]:
    """The epochs as (n, n_figures), to be kept in a run's memory."""
    return np.array([astuple(epoch) for epoch in epochs], np.float64)


def from_array(rows: NDArray[np.generic]) -> list[Epoch]:
    """The epochs that `to_array` made `rows` of."""
    return [
        Epoch(int(fold), Stage(int(stage)), int(epoch), *figures)
        for fold, stage, epoch, *figures in rows.tolist()
    ]
