"""Corrects the shift that weights of int8 give to the channels of a network."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from model.training.export import leaf_layers

Pixels = NDArray[np.uint8]

# Steps of a weight to either side of 0, as the converter to LiteRT rounds it, for each channel.
STEPS = 127
BATCH_SIZE = 20

Mean = NDArray[np.float64]


@contextmanager
def corrected_bias(
    network: Any, samples: Pixels, left_in_float: Sequence[str] = ()
) -> Iterator[None]:
    """Shift the convolutions of a network so that int8 keeps the mean of each of their channels.

    What rounding adds to the weights of a channel does not cancel out, as most inputs are positive:
    the channel is shifted by the sum of these errors times the mean inputs, which are those of the
    `samples`, (n, height, width, 3) uint8. On leaving, the network has its own weights again.
    Layers are `left_in_float` by the names of their tensors in the exported model.

    Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias
    Correction, section 4.2.
    """
    weights = network.get_weights()
    convolutions = [
        one
        for one in leaf_layers(network)
        if _is_plain(one)
        # A layer may be exported with a number after its name.
        and not any(re.search(rf"/{re.escape(one.name)}(_\d+)?/", name) for name in left_in_float)
    ]
    norms = dict(_norms(network))
    try:
        for convolution, mean in _input_means(network, convolutions, samples):
            _correct(convolution, norms.get(convolution), mean)
        yield
    finally:
        network.set_weights(weights)


def _is_plain(layer: Any) -> bool:
    """Whether a layer is a convolution without groups, or with one for each channel."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return bool(layer.depth_multiplier == 1)
    return isinstance(layer, keras.layers.Conv2D) and layer.groups == 1


def _norms(network: Any) -> Iterator[tuple[Any, Any]]:
    """The batch normalisations that the converter folds into a convolution, by that."""
    for layer in leaf_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            if _is_plain(before) and before.activation is keras.activations.linear:
                yield before, layer


def _input_means(network: Any, convolutions: list[Any], samples: Pixels) -> list[tuple[Any, Mean]]:
    """The mean of each channel of what each convolution gets for the samples."""
    seen: dict[Any, list[Mean]] = {one: [] for one in convolutions}

    def record(convolution: Any, inputs: Any) -> Any:
        seen[convolution].append(np.asarray(inputs, np.float64).mean(axis=(0, 1, 2)))
        return type(convolution).call(convolution, inputs)

    try:
        for convolution in convolutions:
            convolution.call = partial(record, convolution)
        for start in range(0, len(samples), BATCH_SIZE):
            network(samples[start : start + BATCH_SIZE], training=False)
    finally:
        for convolution in convolutions:
            del convolution.call
    return [(one, np.mean(means, axis=0)) for one, means in seen.items() if means]


def _correct(convolution: Any, norm: Any | None, mean: Mean) -> None:
    """Shift the bias of a convolution, or of the normalisation that is folded into it."""
    kernel = np.asarray(convolution.kernel, np.float64)
    by_channel = isinstance(convolution, keras.layers.DepthwiseConv2D)
    if by_channel:  # (height, width, channels, 1)
        kernel = kernel.transpose(0, 1, 3, 2)
    if norm is not None:
        variance = np.asarray(norm.moving_variance, np.float64) + norm.epsilon
        kernel = kernel * np.asarray(norm.gamma, np.float64) / np.sqrt(variance)
    step = np.abs(kernel).max(axis=(0, 1, 2)) / STEPS
    step[step == 0] = 1
    errors = (np.round(kernel / step) * step - kernel).sum(axis=(0, 1))
    shift = errors[0] * mean if by_channel else mean @ errors
    bias = convolution.bias if norm is None else norm.beta
    if bias is not None:
        bias.assign_sub(shift)
