"""Features as bytes: eight bits each, with the lowest value and the step of their picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEPS = 255
_RANGE_BYTES = 8


def pack_features(features: NDArray[np.float32]) -> bytes:
    """Return the features (n_features,) of one picture in `n_features + 8` bytes.

    They are the lowest value and the step, float32 in little-endian order, then the number of steps
    of each feature. A feature changes by half a step at most.
    """
    low = float(features.min())
    step = (float(features.max()) - low) / _STEPS or 1.0
    steps = np.rint((features - low) / step).astype(np.uint8)
    return bytes(np.array([low, step], "<f4").tobytes() + steps.tobytes())


def unpack_features(packed: Sequence[bytes | memoryview]) -> NDArray[np.float32]:
    """Return the features (n, n_features) of pictures from what `pack_features` gave for each."""
    rows = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), -1)
    ranges = np.ascontiguousarray(rows[:, :_RANGE_BYTES]).view("<f4")
    features = rows[:, _RANGE_BYTES:].astype(np.float32)
    features *= ranges[:, 1:]
    features += ranges[:, :1]
    return features
