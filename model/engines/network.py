"""A model file that an engine runs, and the predictor that makes scores of what it gives."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Card, EngineName, VariantName, find_file
from model.artifact.head import Head
from model.engines.prediction import Features, Prediction, check_images

Images = Sequence[NDArray[np.uint8]]


class Network(Protocol):
    """A loaded model file; thread-safe."""

    def warm_up(self) -> None:
        """See `Predictor.warm_up`."""

    def run(self, images: Images) -> NDArray[np.float32]:
        """The outputs (n, width) for images (height, width, 3) uint8, in their order."""


# Loads a file whose outputs have this width.
Load = Callable[[Path, int], Network]


class SharedNetworks:
    """The networks that a process has loaded: artifacts with the same backbone get the same one.

    A network is freed with the last predictor that uses it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks: WeakValueDictionary[object, Network] = WeakValueDictionary()

    def get(self, key: object, load: Callable[[], Network]) -> Network:
        """Return the network of a key; it is loaded first if no other predictor has it."""
        with self._lock:
            network = self._networks.get(key)
            if network is None:
                network = self._networks[key] = load()
            return network


class NetworkPredictor:
    """A `Predictor` whose network gives raw scores or, if the artifact has a head, features."""

    batched = False
    picture_ms: float | None = None

    def __init__(
        self,
        card: Card,
        folder: Path,
        engine: EngineName,
        load: Load,
        networks: SharedNetworks | None,
        variant: VariantName = "float",
    ) -> None:
        # Identifies the features; those of its variants are nearly the same, but told apart.
        self.backbone = card.backbone
        self.variant = variant
        self._cards: dict[str, Card] = {"float": card}
        self._cards |= {name: card.of_variant(name) for name in card.variants}
        self.card = card = self._cards[variant]
        self._head: Head | None = None
        width = len(card.labels)
        if "head" in card.files:
            self._head = Head.load(find_file(card, folder, "head"), width)
            width = len(self._head.kernel)
        path = find_file(card, folder, engine)
        key = (card.files[engine].sha256, card.input_size, width)
        self.network = (networks or SharedNetworks()).get(key, lambda: load(path, width))

    def warm_up(self) -> None:
        """See `Predictor.warm_up`."""
        self.network.warm_up()

    def predict(self, images: Images) -> list[Prediction]:
        """See `Predictor.predict`."""
        check_images(images, self.card)
        return self.predictions(self.network.run(images))

    @property
    def backbones(self) -> tuple[str, ...] | None:
        """The backbones whose features suffice for its scores; None if it needs the images."""
        return None if self.backbone is None else (self.backbone,)

    def of_features(self, features: Mapping[str, Features]) -> NDArray[np.floating[Any]]:
        """The scores (n, n_labels) by the features of each of `backbones`: values (n, n_features).

        They are calibrated as those of the variant that gave them.
        """
        assert self.backbone is not None
        variant, values = features[self.backbone]
        return self._scores(values, variant)

    def predictions(self, outputs: NDArray[np.float32]) -> list[Prediction]:
        """Make the predictions of pictures from the outputs (n, width) of the network."""
        backbone, variant = self.backbone, self.variant
        return [
            Prediction(tuple(row), {backbone: Features(variant, values)} if backbone else {})
            for row, values in zip(self._scores(outputs, variant).tolist(), outputs, strict=True)
        ]

    def _scores(self, outputs: NDArray[np.float32], variant: str) -> NDArray[np.floating[Any]]:
        # A model without the variant that gave the features scores them as those of float.
        card = self._cards.get(variant, self._cards["float"])
        raw = outputs if self._head is None else self._head.scores(outputs, card.activation)
        return calibrated(raw, card.calibration, card.activation)
