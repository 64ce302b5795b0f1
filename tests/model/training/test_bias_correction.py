"""The means of channels, which int8 weights shift, are those of float after the correction."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from model.training.export import leaf_layers
from model.training.quantization import bias_correction

# Keras hands NumPy an array type that NumPy 2.4 finds old-fashioned.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 12


def network(first: Any, norm: Any | None) -> Any:
    """One convolution after another that gives as many channels, in a model of its own."""
    keras.utils.set_random_seed(1)
    pictures = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    grey = layers.Rescaling(1 / 255)(pictures)
    features = keras.Input((SIDE, SIDE, 3))
    found = first(features)
    inner = keras.Model(features, found if norm is None else norm(found))
    outer = keras.Model(pictures, layers.GlobalAveragePooling2D()(inner(grey)))
    for weight in outer.weights:
        weight.assign(keras.random.uniform(weight.shape, 0.1, 1.0))
    return outer


def samples() -> NDArray[np.uint8]:
    colours = np.random.default_rng(1).integers(0, 200, (40, 1, 1, 3))
    return np.broadcast_to(colours, (40, SIDE, SIDE, 3)).astype(np.uint8)


def round_weights(model: Any) -> None:
    """Round the kernel to 10 steps a channel, the normalisation included, as if to int8."""
    convolution = next(one for one in leaf_layers(model) if hasattr(one, "kernel"))
    norm = next((one for one in leaf_layers(model) if hasattr(one, "gamma")), None)
    kernel = np.asarray(convolution.kernel, np.float64)
    axes = (0, 1, 3) if isinstance(convolution, layers.DepthwiseConv2D) else (0, 1, 2)
    scale = np.ones(1)
    if norm is not None:
        scale = np.asarray(norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon), np.float64)
        scale = scale[:, None] if axes == (0, 1, 3) else scale
    kernel = kernel * scale
    step = np.abs(kernel).max(axis=axes, keepdims=True) / 10
    convolution.kernel.assign(np.round(kernel / step) * step / scale)


@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize(
    "first",
    [
        lambda use_bias: layers.Conv2D(5, 1, use_bias=use_bias),
        lambda use_bias: layers.DepthwiseConv2D(3, use_bias=use_bias),
    ],
    ids=["convolution", "by channel"],
)
def test_the_mean_of_each_channel_is_that_of_float(
    first: Any, with_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bias_correction, "STEPS", 10)
    norm = layers.BatchNormalization() if with_norm else None
    model, pictures = network(first(not with_norm), norm), samples()
    before = model.get_weights()
    expected = model.predict(pictures, verbose=0).mean(axis=0)
    with bias_correction.corrected_bias(model, pictures):
        round_weights(model)
        found = model.predict(pictures, verbose=0).mean(axis=0)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    round_weights(model)
    uncorrected = model.predict(pictures, verbose=0).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(uncorrected - expected).max() > 100 * np.abs(found - expected).max()


def test_convolutions_in_groups_are_left_as_they_are() -> None:
    model = network(layers.Conv2D(6, 3, groups=3), None)
    before = model.get_weights()
    with bias_correction.corrected_bias(model, samples()):
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)
    model.predict(samples()[:1], verbose=0)
