"""The head of a model: the weights that make scores of the features of its backbone, by NumPy."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Activation, ArtifactInvalid

HEAD_NAME = "head.npz"


@dataclass(frozen=True)
class Head:
    """One dense layer: `kernel` (n_features, n_labels) and `bias` (n_labels,), both float32."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def load(cls, path: Path, label_count: int) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactInvalid: it is no such file, or not for `label_count` labels.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                kernel, bias = arrays["kernel"], arrays["bias"]
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise ArtifactInvalid(f"{path} is no head ({error}): export the model again") from error
        fits = kernel.ndim == 2 and kernel.shape[1:] == bias.shape == (label_count,)
        floats = kernel.dtype == bias.dtype == np.float32
        if not fits or not floats or not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ArtifactInvalid(
                f"{path} has weights {kernel.dtype} {kernel.shape} and {bias.dtype} {bias.shape}, "
                f"and must have finite float32 for {label_count} labels: export the model again"
            )
        return cls(kernel, bias)

    def save(self, path: Path) -> None:
        """Write the weights; equal weights give equal bytes."""
        np.savez(path, kernel=self.kernel, bias=self.bias)

    def scores(
        self, features: NDArray[np.floating[Any]], activation: Activation
    ) -> NDArray[np.float64]:
        """The scores (n, n_labels) of pictures by their features (n, n_features)."""
        logits = (features.astype(np.float32, copy=False) @ self.kernel + self.bias).astype(
            np.float64
        )
        if activation == "sigmoid":
            return np.asarray(np.exp(-np.logaddexp(0, -logits)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
