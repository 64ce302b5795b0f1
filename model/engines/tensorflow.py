"""The GPU engine: the Keras model as compiled TensorFlow, in batches of a few fixed sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Card, VariantName, find_file
from model.engines.cuda import prepare_tensorflow
from model.engines.prediction import Prediction, check_images


def has_gpu() -> bool:
    """Whether TensorFlow finds a GPU that it can use; imports TensorFlow."""
    return bool(_import_tensorflow().config.list_physical_devices("GPU"))


class TensorFlowPredictor:
    """Scores batches of 1, 2, 4 and so on up to `batch_size`, filled up with blank images.

    Each size is traced once, in `warm_up` or when it is first needed. Tracing other sizes, and
    tuning them on a GPU, would delay jobs.
    """

    batched = True
    variant: VariantName = "float"
    picture_ms: float | None = None

    def __init__(self, card: Card, folder: Path, batch_size: int) -> None:
        self._tf = _import_tensorflow()
        self.card = card
        network = self._tf.keras.models.load_model(find_file(card, folder, "keras"), compile=False)
        self._score = self._tf.function(lambda batch: network(batch, training=False))
        powers = range((batch_size - 1).bit_length())
        self._sizes = [*(2**power for power in powers), batch_size]

    def warm_up(self) -> None:
        """Trace and run every batch size."""
        for size in self._sizes:
            self._run(np.zeros((size, *self.card.input_size, 3), np.uint8))

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """See `Predictor.predict`."""
        check_images(images, self.card)
        largest = self._sizes[-1]
        predictions = []
        for start in range(0, len(images), largest):
            chosen = images[start : start + largest]
            size = next(size for size in self._sizes if size >= len(chosen))
            batch = np.zeros((size, *self.card.input_size, 3), np.uint8)
            batch[: len(chosen)] = chosen
            raw = self._run(batch)[: len(chosen)]
            scores = calibrated(raw, self.card.calibration, self.card.activation)
            predictions += [Prediction(tuple(row)) for row in scores.tolist()]
        return predictions

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self._score(self._tf.constant(batch)))


def _import_tensorflow() -> Any:
    prepare_tensorflow()
    import tensorflow as tf

    return tf
