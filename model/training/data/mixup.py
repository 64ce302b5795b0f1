"""Mixup: pictures are trained on as blends of two, and so are their labels."""

import numpy as np
from numpy.typing import NDArray

from model.training.data.dataset import Labels


def mix(
    features: NDArray[np.float32], labels: Labels, strength: float, random: np.random.Generator
) -> tuple[NDArray[np.float32], Labels]:
    """`features` (batch, ...) and `labels` (batch, n_labels), each with a share of another's.

    The share is that of Beta(strength, strength), at most a half; a strength of 0 mixes nothing.

    Sources: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization; Verma et al. 2019,
    Manifold Mixup, for features in place of pixels.
    """
    if not strength:
        return features, labels
    others = random.permutation(len(features))
    share = random.beta(strength, strength, len(features)).astype(np.float32)
    share = np.minimum(share, 1 - share)

    def blend(values: NDArray[np.float32]) -> NDArray[np.float32]:
        shares = share.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(values + shares * (values[others] - values), np.float32)

    return blend(features), blend(labels)
