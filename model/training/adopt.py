"""Makes an artifact of any Keras classifier with one picture in and one row of scores out.

`python -m model.training.adopt` reads an `Adoption` as JSON, so that whoever starts it need not
import TensorFlow.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.artifact.card import Card, Scaling, Source
from model.engines.litert import LiteRTPredictor
from model.images.decode import PREPROCESSING, decode
from model.training.export import write_artifact

# A LiteRT model with half-precision weights is taken if no score moves by more than this.
TOLERANCE = 0.01
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225])
CAFFE_MEAN = np.array([103.939, 116.779, 123.68])

Pixels = NDArray[np.uint8]


class AdoptionError(ValueError):
    """A network that no artifact can be made of as it was described; says what to change."""


class Adoption(BaseModel):
    """What is to be known of a network that its file does not tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keras_path: Path
    folder: Path
    name: str
    version: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    scaling: Scaling
    pictures: tuple[Path, ...]
    activation: Literal["sigmoid", "softmax"] | None = None
    """Where the network gives logits, what makes scores of them."""
    input_size: tuple[int, int] | None = None
    """(height, width) in pixels, where the network takes any."""
    top_k: int | None = None
    sources: tuple[Source, ...] = ()
    notes: str = ""


def adopt(adoption: Adoption) -> Card:
    """Write the artifact of a network to `adoption.folder`.

    Raises:
        AdoptionError: the network cannot be read, is none of this kind, or was described wrongly.
    """
    try:
        network = keras.models.load_model(adoption.keras_path, compile=False)
    except (ValueError, TypeError, OSError, ImportError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise AdoptionError(f"{adoption.keras_path} cannot be loaded: {first_line}") from error
    activation = _activation(network, adoption.activation)
    size = _input_size(network, adoption.input_size)
    full = wrap(network, adoption.scaling, size, activation)
    if full.output_shape != (None, len(adoption.labels)):
        raise AdoptionError(
            f"the network gives scores of shape {full.output_shape[1:]} and there are "
            f"{len(adoption.labels)} labels: give one label for each, in the order of the scores"
        )
    images = [decode(path.read_bytes(), size).pixels for path in adoption.pictures]
    expected = np.asarray(full(np.stack(images), training=False))
    _check_scores(expected, activation)
    card = adoption.model_dump(exclude={"keras_path", "folder", "pictures"}) | {
        "activation": activation,
        "input_size": size,
        "preprocessing": PREPROCESSING,
        "created": datetime.now(UTC).date(),
    }
    for half in (True, False):
        written = write_artifact(full, adoption.folder, card, half=half)
        if _largest_difference(written, adoption.folder, images, expected) <= TOLERANCE:
            return written
    raise AdoptionError(
        "the scores of the LiteRT model are not those of the Keras model: it has a part that "
        "LiteRT computes differently"
    )


def wrap(network: Any, scaling: Scaling, size: tuple[int, int], activation: str) -> Any:
    """`network` as it is served: uint8 RGB (batch, *size, 3) in, float32 scores (batch, n) out."""
    pictures = keras.Input((*size, 3), dtype="uint8", name="pictures")
    scores = network(_scaled(pictures, network, scaling), training=False)
    made = "linear" if _last_activation(network) == activation else activation
    full = keras.Model(
        pictures, keras.layers.Activation(made, dtype="float32", name="scores")(scores)
    )
    full.jit_compile = False
    return full


def _scaled(pictures: Any, network: Any, scaling: Scaling) -> Any:
    if "int" in str(network.inputs[0].dtype):
        if scaling != "raw":
            raise AdoptionError("the network takes whole numbers of 0 to 255: its scaling is raw")
        return pictures
    match scaling:
        case "tf":
            return keras.layers.Rescaling(1 / 127.5, -1)(pictures)
        case "unit":
            return keras.layers.Rescaling(1 / 255)(pictures)
        case "raw":
            return keras.layers.Rescaling(1.0)(pictures)
        case "torch":
            scale, offset = 1 / (255 * IMAGENET_DEVIATION), -IMAGENET_MEAN / IMAGENET_DEVIATION
            return keras.layers.Rescaling(scale.tolist(), offset.tolist())(pictures)
        case "caffe":
            blue_first = keras.ops.flip(keras.layers.Rescaling(1.0)(pictures), axis=-1)
            return keras.layers.Rescaling([1.0] * 3, (-CAFFE_MEAN).tolist())(blue_first)


def _activation(network: Any, said: str | None) -> Literal["sigmoid", "softmax"]:
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise AdoptionError("the network must have one input, the picture, and one output")
    found = _last_activation(network)
    if found not in ("sigmoid", "softmax", "linear"):
        raise AdoptionError(f"the network ends in {found}, and must end in sigmoid or softmax")
    if found == "linear" and said is None:
        raise AdoptionError("the network gives logits: say --activation softmax or sigmoid")
    if found != "linear" and said not in (None, found):
        raise AdoptionError(f"the network ends in {found}, not in {said}: leave --activation out")
    return "softmax" if (said or found) == "softmax" else "sigmoid"


def _last_activation(network: Any) -> str:
    last = network.layers[-1]
    if isinstance(last, keras.Model):
        return _last_activation(last)
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return str(getattr(getattr(last, "activation", None), "__name__", "linear"))


def _input_size(network: Any, said: tuple[int, int] | None) -> tuple[int, int]:
    shape = network.inputs[0].shape
    if len(shape) != 4 or shape[3] != 3:
        raise AdoptionError(
            f"the network takes {tuple(shape)}: it must be (batch, height, width, 3), RGB with the "
            "channels last"
        )
    size = shape[1:3] if None not in shape[1:3] else said
    if size is None:
        raise AdoptionError("the network takes pictures of any size: say --input-size HEIGHTxWIDTH")
    if said is not None and tuple(size) != said:
        raise AdoptionError(
            f"the network takes pictures of {size[0]}x{size[1]}: leave the size out"
        )
    return int(size[0]), int(size[1])


def _check_scores(scores: NDArray[np.float32], activation: str) -> None:
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise AdoptionError(
            f"the network gives scores of {scores.min()} to {scores.max()}, not 0..1"
        )
    if activation == "softmax" and not np.allclose(scores.sum(axis=1), 1, atol=0.01):
        raise AdoptionError("the scores of a picture do not add up to 1, as those of softmax do")


def _largest_difference(
    card: Card, folder: Path, images: Sequence[Pixels], expected: NDArray[np.float32]
) -> float:
    predictions = LiteRTPredictor(card, folder, threads=1).predict(images)
    scores = np.array([prediction.scores for prediction in predictions])
    return float(np.abs(scores - expected).max())


def main() -> int:
    """Adopt what standard input describes, and give the exit code: 2 for what is to be changed."""
    try:
        adopt(Adoption.model_validate_json(sys.stdin.buffer.read()))
    except AdoptionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
