"""Scores images with several models, whose common backbones run once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.engines.network import Images, Network, NetworkPredictor
from model.engines.prediction import Prediction, check_images


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

    def predict(self, images: Images) -> list[Prediction]:
        """See `Predictor.predict`."""
        check_images(images, self.card)
        outputs: dict[Network, NDArray[np.float32]] = {}
        scores: list[tuple[float, ...]] = [()] * len(images)
        for part in self._parts:
            if part.network not in outputs:
                outputs[part.network] = part.network.run(images)
            predictions = part.predictions(outputs[part.network])
            scores = [before + new.scores for before, new in zip(scores, predictions, strict=True)]
        return [Prediction(one) for one in scores]
