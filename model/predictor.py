"""What scores pictures: the protocol both engines keep, and the choice between them."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from model.artifact.card import Card, load_card
from model.engines.prediction import Prediction

log = structlog.get_logger()

EngineChoice = Literal["auto", "litert", "tensorflow"]


class Predictor(Protocol):
    """Scores images with one model. Several threads may call it at once."""

    @property
    def card(self) -> Card: ...

    def warm_up(self) -> None:
        """Do now what would slow the first predictions down."""

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Score any number of images, each uint8 RGB (height, width, 3) of the card's input size.

        The answer holds one prediction an image, in their order.

        Raises:
            ValueError: an image has another shape or type.
        """


def load_predictor(
    folder: Path, engine: EngineChoice = "auto", threads: int = 1, batch_size: int = 16
) -> Predictor:
    """Load the artifact in `folder`.

    `engine` "auto" is TensorFlow where it sees a GPU and the artifact has the Keras model that it
    needs, else LiteRT. LiteRT runs `threads`
    inferences at once; TensorFlow runs batches of up to `batch_size` images.

    Raises:
        ArtifactInvalid: the artifact, or the file of it that this engine needs, is not usable.
    """
    card = load_card(folder)
    has_keras = "keras" in card.files and (folder / card.files["keras"].path).exists()
    if engine == "tensorflow" or (engine == "auto" and has_keras and gpu_usable()):
        from model.engines.tensorflow import TensorFlowPredictor

        return TensorFlowPredictor(card, folder, batch_size)
    from model.engines.litert import LiteRTPredictor

    return LiteRTPredictor(card, folder, threads)


def gpu_usable(devices: Path = Path("/dev")) -> bool:
    """Whether TensorFlow sees a GPU. It takes seconds to import, so it is asked last, and only
    where it is installed and the driver shows a device: NVIDIA, AMD, or WSL's door to either.
    """
    if not any(any(devices.glob(name)) for name in ("nvidia[0-9]*", "kfd", "dxg")):
        return False
    if find_spec("tensorflow") is None:
        return False
    from model.engines.tensorflow import sees_gpu

    usable = sees_gpu()
    if not usable:
        log.warning("gpu_unused", reason="TensorFlow cannot use it; its own log says why")
    return usable
