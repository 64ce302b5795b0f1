"""Makes an artifact of any Keras classifier with one picture as input and one vector of scores."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.artifact.card import Activation
from model.engines.litert import LiteRTPredictor
from model.engines.prediction import find_score_fault
from model.training.adoption import AdoptionError, Description, PixelScaling, decoded
from model.training.export import write_artifact
from model.training.quantization.quantize import add_int8

# A LiteRT model with float16 weights is used if no score changes by more than this.
TOLERANCE = 0.01
BATCH_SIZE = 32


class Adoption(Description):
    """A Keras network in a file."""

    keras_path: Path
    activation: Activation | None = None
    """Converts logits to scores, if the network gives logits."""
    int8: bool = False
    """Add an int8 variant, if it keeps its bounds on `pictures`."""


def adopt(adoption: Adoption) -> str | None:
    """Write the artifact of a network to `adoption.folder`.

    Returns why it has no int8 variant, if one was asked for.

    Raises:
        AdoptionError: the network cannot be read, is not a classifier of this kind, or does not
            match its description.
    """
    try:
        network = keras.models.load_model(adoption.keras_path, compile=False)
    except (ValueError, TypeError, OSError, ImportError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise AdoptionError(
            f"{adoption.keras_path} cannot be loaded ({first_line}): save the network again with "
            "Keras 3, without layers of your own"
        ) from error
    network = _in_float32(network)
    activation = _activation(network, adoption.activation)
    size = _input_size(network, adoption.input_size)
    full = wrap(network, adoption, size, activation)
    if full.output_shape != (None, len(adoption.labels)):
        raise AdoptionError(
            f"the network gives scores of shape {full.output_shape[1:]} and there are "
            f"{len(adoption.labels)} labels: give one label for each score, in their order"
        )
    images = [decoded(path, size) for path in adoption.pictures]
    expected = full.predict(np.stack(images), batch_size=BATCH_SIZE, verbose=0)
    if fault := find_score_fault(expected, activation):
        raise AdoptionError(f"the network gives {fault}: choose its own scaling and activation")
    fields = adoption.card_fields() | {"activation": activation, "input_size": size}
    for float16 in (True, False):
        card = write_artifact(full, adoption.folder, fields, float16=float16)
        predictions = LiteRTPredictor(card, adoption.folder, threads=1).predict(images)
        scores = np.array([prediction.scores for prediction in predictions])
        if np.abs(scores - expected).max() <= TOLERANCE:
            if not adoption.int8:
                return None
            pixels = np.stack(images)
            return add_int8(full, adoption.folder, pixels[::2], pixels[1::2])
    raise AdoptionError(
        "the LiteRT model gives other scores than the Keras model, so the network has a layer that "
        "LiteRT computes differently: replace that layer"
    )


def wrap(network: Any, scaling: PixelScaling, size: tuple[int, int], activation: Activation) -> Any:
    """`network` as it is served: uint8 RGB (batch, *size, 3) in, float32 scores (batch, n) out."""
    pictures = keras.Input((*size, 3), dtype="uint8", name="pictures")
    scores = network(_scaled(pictures, network, scaling), training=False)
    last = "linear" if _last_activation(network) == activation else activation
    full = keras.Model(
        pictures, keras.layers.Activation(last, dtype="float32", name="scores")(scores)
    )
    full.jit_compile = False
    return full


def _in_float32(network: Any) -> Any:
    """`network` without mixed precision, which LiteRT cannot convert; its weights are float32."""
    mixed = network.to_json()
    plain = re.sub("mixed_b?float16", "float32", mixed)
    if plain == mixed:
        return network
    converted = keras.models.model_from_json(plain)
    converted.set_weights(network.get_weights())
    return converted


def _scaled(pictures: Any, network: Any, scaling: PixelScaling) -> Any:
    if "int" in str(network.inputs[0].dtype):
        if scaling.scaling != "raw":
            raise AdoptionError("the network takes integers of 0 to 255: use the scaling raw")
        return pictures
    if scaling.scaling == "caffe":
        pictures = keras.ops.flip(keras.layers.Rescaling(1.0)(pictures), axis=-1)
    return keras.layers.Rescaling(*scaling.factors_and_offsets())(pictures)


def _activation(network: Any, given: Activation | None) -> Activation:
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise AdoptionError("the network must have one input, the picture, and one output")
    found = _last_activation(network)
    if found == "linear":
        if given is None:
            raise AdoptionError("the network gives logits: add --activation softmax or sigmoid")
        return given
    if found not in ("sigmoid", "softmax"):
        raise AdoptionError(f"the network ends in {found}, but must end in sigmoid or softmax")
    if given not in (None, found):
        raise AdoptionError(f"the network ends in {found}, not in {given}: omit --activation")
    return "softmax" if found == "softmax" else "sigmoid"


def _last_activation(network: Any) -> str:
    """The activation of the last layer, or of a bare operation such as `keras.ops.softmax`."""
    last = network.outputs[0]._keras_history.operation
    if isinstance(last, keras.Model):
        return _last_activation(last)
    if type(last).__name__ in ("Softmax", "Sigmoid"):  # the operations, and the layer Softmax
        return type(last).__name__.lower()
    return str(getattr(getattr(last, "activation", None), "__name__", "linear"))


def _input_size(network: Any, given: tuple[int, int] | None) -> tuple[int, int]:
    shape = network.inputs[0].shape
    if len(shape) != 4 or shape[3] != 3:
        raise AdoptionError(
            f"the network takes {tuple(shape)}, but must take (batch, height, width, 3): RGB with "
            "the channels last"
        )
    size = shape[1:3] if None not in shape[1:3] else given
    if size is None:
        raise AdoptionError("the network takes pictures of any size: add --input-size HEIGHTxWIDTH")
    if given not in (None, tuple(size)):
        raise AdoptionError(f"the network takes {size[0]}x{size[1]} pixels: omit --input-size")
    return int(size[0]), int(size[1])
