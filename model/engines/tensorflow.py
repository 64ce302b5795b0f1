"""The GPU engine: the Keras model as compiled TensorFlow, in batches of a few fixed sizes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import ArtifactInvalid, Card
from model.engines.cuda import prepare_tensorflow
from model.engines.network import Images, NetworkPredictor, SharedNetworks


def has_gpu() -> bool:
    """Whether TensorFlow finds a GPU that it can use; imports TensorFlow."""
    return bool(_import_tensorflow().config.list_physical_devices("GPU"))


class TensorFlowPredictor(NetworkPredictor):
    """Scores batches of images on a GPU."""

    batched = True

    def __init__(
        self, card: Card, folder: Path, batch_size: int, networks: SharedNetworks | None = None
    ) -> None:
        load = partial(_TensorFlowNetwork, card.input_size, batch_size)
        super().__init__(card, folder, "keras", load, networks)


class _TensorFlowNetwork:
    """Runs batches of 1, 2, 4 and so on up to `batch_size`, filled up with blank images.

    Each size is traced once, in `warm_up` or when it is first needed. Tracing other sizes, and
    tuning them on a GPU, would delay jobs.
    """

    def __init__(
        self, input_size: tuple[int, int], batch_size: int, path: Path, width: int
    ) -> None:
        self._tf = _import_tensorflow()
        network = self._tf.keras.models.load_model(path, compile=False)
        if network.output_shape != (None, width):
            raise ArtifactInvalid(
                f"{path} gives {network.output_shape[1:]}, which is not what its card says: "
                "export the model again"
            )
        self.traced = self._tf.function(lambda batch: network(batch, training=False))
        self._input_size, self._width = input_size, width
        powers = range((batch_size - 1).bit_length())
        self._sizes = [*(2**power for power in powers), batch_size]

    def warm_up(self) -> None:
        """Trace and run every batch size."""
        for size in self._sizes:
            self._run(np.zeros((size, *self._input_size, 3), np.uint8))

    def run(self, images: Images) -> NDArray[np.float32]:
        """See `Network.run`."""
        largest = self._sizes[-1]
        outputs = np.empty((len(images), self._width), np.float32)
        for start in range(0, len(images), largest):
            chosen = images[start : start + largest]
            size = next(size for size in self._sizes if size >= len(chosen))
            batch = np.zeros((size, *self._input_size, 3), np.uint8)
            batch[: len(chosen)] = chosen
            outputs[start : start + largest] = self._run(batch)[: len(chosen)]
        return outputs

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self.traced(self._tf.constant(batch)))


def _import_tensorflow() -> Any:
    prepare_tensorflow()
    import tensorflow as tf

    return tf
