"""The CPU engine: LiteRT interpreters, each used by one thread at a time."""

from collections.abc import Sequence
from pathlib import Path
from queue import LifoQueue

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import ArtifactInvalid, Card, VariantName, find_file
from model.engines.prediction import Prediction, check_images


class LiteRTPredictor:
    """Scores one image at a time in each of up to `threads` interpreters.

    Measured with MobileNetV2 on two cores: batches gain nothing on a CPU (143 images a CPU second
    one by one, 127 in fours) and cost 7 MB an image, an interpreter costs 20 MB, and two of them
    run 1.9 times as fast as one, because LiteRT releases the GIL while it computes.
    """

    batched = False

    def __init__(
        self,
        card: Card,
        folder: Path,
        threads: int,
        variant: VariantName = "float",
        picture_ms: float | None = None,
    ) -> None:
        """Load a variant of the artifact in `folder`; `picture_ms` is its speed, if measured."""
        self.card = card = card.of_variant(variant)
        self.variant, self.picture_ms = variant, picture_ms
        self._path = find_file(card, folder, "litert")
        # None stands for an interpreter that is not created yet. Last in, first out: there are
        # never more interpreters than were busy at the same time.
        self._idle: LifoQueue[_Interpreter | None] = LifoQueue()
        for _ in range(threads - 1):
            self._idle.put(None)
        self._idle.put(_Interpreter(card, self._path))

    def warm_up(self) -> None:
        """Create every interpreter and run each once."""
        blank = np.zeros((*self.card.input_size, 3), np.uint8)
        interpreters = [self._take() for _ in range(self._idle.qsize())]
        for interpreter in interpreters:
            interpreter.score(blank)
            self._idle.put(interpreter)

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """See `Predictor.predict`. Waits while all interpreters are busy."""
        check_images(images, self.card)
        interpreter = self._take()
        try:
            return [Prediction(interpreter.score(image)) for image in images]
        finally:
            self._idle.put(interpreter)

    def _take(self) -> "_Interpreter":
        idle = self._idle.get()
        try:
            return idle or _Interpreter(self.card, self._path)
        except BaseException:
            self._idle.put(None)
            raise


class _Interpreter:
    """Runs the model in `path`, which is memory-mapped, so that all interpreters share one copy."""

    def __init__(self, card: Card, path: Path) -> None:
        self._card = card
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (model_input,) = self._interpreter.get_input_details()
        (model_output,) = self._interpreter.get_output_details()
        actual = [(one["dtype"], tuple(one["shape"])) for one in (model_input, model_output)]
        expected = [(np.uint8, (1, *card.input_size, 3)), (np.float32, (1, len(card.labels)))]
        if actual != expected:
            raise ArtifactInvalid(
                f"{path} takes {actual[0]} and gives {actual[1]}, which is not what its card says: "
                "export the model again"
            )
        if model_input["quantization"] not in ((0.0, 0), (1.0, 0)):
            scale, zero_point = model_input["quantization"]
            raise ArtifactInvalid(
                f"{path} quantizes its input with the scale {scale:g} and the zero point "
                f"{zero_point}, but gets pixels of 0 to 255: export the model again"
            )
        self._input = model_input["index"]
        self._output = model_output["index"]

    def score(self, image: NDArray[np.uint8]) -> tuple[float, ...]:
        self._interpreter.set_tensor(self._input, image[np.newaxis])
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._output)
        scores = calibrated(raw, self._card.calibration, self._card.activation)
        return tuple(scores[0].tolist())
