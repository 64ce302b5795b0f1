"""The protocol of predictors, which score images, and their loading and verification."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from model.artifact.card import ArtifactInvalid, Card, load_card
from model.engines.cuda import cuda_installed
from model.engines.network import NetworkPredictor, SharedNetworks
from model.engines.prediction import Prediction, find_score_fault

log = structlog.get_logger()

EngineChoice = Literal["auto", "litert", "onnx", "tensorflow"]
VariantChoice = Literal["auto", "float", "int8"]


class Predictor(Protocol):
    """Scores images with one model; thread-safe."""

    @property
    def card(self) -> Card: ...

    @property
    def variant(self) -> str:
        """The variant that runs; those of several models, joined by "+", if they differ."""

    @property
    def batched(self) -> bool:
        """Whether a batch is scored in one pass, so that larger batches are faster."""

    @property
    def picture_ms(self) -> float | None:
        """CPU milliseconds a picture, as measured on this processor; None if not measured."""

    def warm_up(self) -> None:
        """Do in advance the work that would delay the first predictions."""

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Score any number of images, each uint8 RGB (height, width, 3) of the card's input size.

        Returns one prediction per image, in their order.

        Raises:
            ValueError: an image has another shape or type.
        """


def load_predictor(
    folder: Path,
    engine: EngineChoice = "auto",
    threads: int = 1,
    batch_size: int = 16,
    variant: VariantChoice = "float",
    speeds_path: Path | None = None,
    networks: SharedNetworks | None = None,
) -> NetworkPredictor:
    """Load the artifact in `folder`.

    `engine` "auto" chooses ONNX Runtime if the artifact has only an ONNX file; else TensorFlow if
    it can use a GPU and the artifact has its Keras model, and otherwise LiteRT. On a CPU, `threads`
    inferences run at once; on a GPU, batches of up to `batch_size` images. `variant` applies to
    LiteRT; see `model.engines.variants`, which keeps its measurements in the file `speeds_path`. A
    network that is in `networks` is not loaded again.

    Raises:
        ArtifactInvalid: the artifact, or the file of it that the engine needs, cannot be used.
    """
    card = load_card(folder)
    if engine == "onnx" or (engine == "auto" and not card.files.keys() & {"litert", "keras"}):
        return _load_onnx(card, folder, threads, batch_size, networks)
    has_keras = "keras" in card.files and (folder / card.files["keras"].path).exists()
    on_gpu = engine == "auto" and variant != "int8" and has_keras and gpu_usable()
    if engine == "auto" and not has_keras and cuda_installed():
        log.warning("gpu_unused", reason=f"{card.name}@{card.version} has no Keras model")
    if engine == "tensorflow" or on_gpu:
        from model.engines.tensorflow import TensorFlowPredictor

        return TensorFlowPredictor(card, folder, batch_size, networks)
    from model.engines.litert import LiteRTPredictor
    from model.engines.variants import choose_variant

    chosen, picture_ms = choose_variant(card, folder, variant, speeds_path)
    return LiteRTPredictor(card, folder, threads, chosen, picture_ms, networks)


def _load_onnx(
    card: Card, folder: Path, threads: int, batch_size: int, networks: SharedNetworks | None
) -> NetworkPredictor:
    if find_spec("onnxruntime") is None:
        raise ArtifactInvalid(
            f"{card.name}@{card.version} needs ONNX Runtime, which is not installed: pip install "
            "'piqueue-server[onnx]', or build the image with --build-arg ONNX=1"
        )
    from model.engines.onnx import OnnxPredictor

    return OnnxPredictor(card, folder, threads, batch_size, networks)


def gpu_usable(devices: Path = Path("/dev")) -> bool:
    """Whether TensorFlow can use a GPU.

    Importing TensorFlow takes seconds. So it is only imported if it is installed and a driver
    shows a device: of NVIDIA, of AMD, or of either within WSL. A GPU that is not used although it
    should be is logged.
    """
    if not any(any(devices.glob(name)) for name in ("nvidia[0-9]*", "kfd", "dxg")):
        if cuda_installed():
            log.warning(
                "gpu_unused",
                reason="TensorFlow for GPUs is installed, but there is no GPU: give this container "
                "or machine one, or use the worker without it",
            )
        return False
    if find_spec("tensorflow") is None:
        return False
    from model.engines.tensorflow import has_gpu

    usable = has_gpu()
    if not usable:
        log.warning("gpu_unused", reason="TensorFlow cannot use it; its own log says why")
    return usable


def verify_artifact(folder: Path) -> Card:
    """Load each variant of the artifact in `folder` and score a picture of noise.

    Raises:
        ArtifactInvalid: it cannot be loaded, the number of scores is not the number of labels,
            scores are not in 0..1, or those of a softmax do not add up to 1.
    """
    try:
        predictor = load_predictor(folder)
        _verify(predictor)
        card = predictor.card
        for name in card.variants:
            _verify(load_predictor(folder, "litert", variant=name))
    except (ValueError, RuntimeError) as error:
        raise ArtifactInvalid(
            f"{folder} cannot be run ({error}): export the model again"
        ) from error
    return card


def _verify(predictor: Predictor) -> None:
    card = predictor.card
    noise = np.random.default_rng(1).integers(0, 256, (*card.input_size, 3), np.uint8)
    (prediction,) = predictor.predict([noise])
    scores = np.array([prediction.scores])
    gives = f"{card.name}@{card.version} ({predictor.variant}) gives"
    if scores.shape[1] != len(card.labels):
        raise ArtifactInvalid(
            f"{gives} {scores.size} scores for {len(card.labels)} labels: export the model again"
        )
    if fault := find_score_fault(scores, "sigmoid" if card.calibration else card.activation):
        raise ArtifactInvalid(f"{gives} {fault}: export the model again")
