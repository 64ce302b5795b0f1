"""Scores images with several models, whose common backbones run once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.engines.network import Images, Network, NetworkPredictor
from model.engines.prediction import Features, Prediction, check_images


class JointPredictor:
    """A `Predictor` whose scores are those of all `parts`, in this order; thread-safe.

    Raises:
        ValueError: the models take images of different sizes.
    """

    def __init__(self, parts: Sequence[NetworkPredictor]) -> None:
        self._parts = parts
        # Of the first model; all have its input size.
        self.card = parts[0].card
        for part in parts:
            if part.card.input_size != self.card.input_size:
                raise ValueError(
                    f"{part.card.name} takes images of {part.card.input_size}, and "
                    f"{self.card.name} of {self.card.input_size}: submit a job for each"
                )
        self.batched = any(part.batched for part in parts)
        self.variant = "+".join(dict.fromkeys(part.variant for part in parts))
        speeds = {part.network: part.picture_ms for part in parts}.values()
        known = [speed for speed in speeds if speed is not None]
        self.picture_ms = sum(known) if len(known) == len(speeds) else None

    def warm_up(self) -> None:
        """See `Predictor.warm_up`."""
        for part in self._parts:
            part.warm_up()

    @property
    def backbones(self) -> tuple[str, ...] | None:
        """See `NetworkPredictor.backbones`; in the order of the parts."""
        found = dict.fromkeys(part.backbone for part in self._parts)
        return None if None in found else tuple(one for one in found if one is not None)

    def predict(self, images: Images) -> list[Prediction]:
        """See `Predictor.predict`."""
        check_images(images, self.card)
        outputs: dict[Network, NDArray[np.float32]] = {}
        for part in self._parts:
            if part.network not in outputs:
                outputs[part.network] = part.network.run(images)
        return _joined([part.predictions(outputs[part.network]) for part in self._parts])

    def of_features(self, features: Mapping[str, Features]) -> NDArray[np.floating[Any]]:
        """See `NetworkPredictor.of_features`."""
        return np.hstack([part.of_features(features) for part in self._parts])


def _joined(by_part: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """One prediction a picture, with the scores and features of those of all parts."""
    joined = []
    for parts in zip(*by_part, strict=True):
        scores = tuple(score for part in parts for score in part.scores)
        features = {key: row for part in parts for key, row in part.features.items()}
        joined.append(Prediction(scores, features))
    return joined
