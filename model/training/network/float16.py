"""Moves weights to where half precision holds them, so that Keras and LiteRT models agree."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def round_to_float16(model: Any) -> None:
    """Rounds the weights of `model` in place as exporting to float16 would.

    The converter folds each batch normalisation into the convolution before it and keeps the
    product in half precision. Here the product is rounded and divided back, so that both models
    compute with the same numbers. Without this, scores near 0.5 differ by up to 0.1.
    """
    for layer in _layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            _round_pair(layer.input._keras_history.operation, layer)
        elif isinstance(layer, keras.layers.Dense):
            for weight in layer.weights:
                weight.assign(_half(np.asarray(weight)))


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _round_pair(convolution: Any, norm: Any) -> None:
    gamma, beta, mean, variance = (
        np.asarray(weight, np.float64)
        for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    norm.beta.assign(_half(beta - mean * scale) + mean * scale)
    by_channel = scale
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        by_channel = scale[:, None]
    folded = np.asarray(convolution.kernel, np.float64) * by_channel
    safe = np.where(by_channel == 0, 1, by_channel)
    convolution.kernel.assign(_half(folded) / safe)


def _half(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)
