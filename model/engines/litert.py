"""The CPU engine: LiteRT interpreters, each used by one thread at a time."""

from functools import partial
from pathlib import Path
from queue import LifoQueue

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from model.artifact.card import ArtifactInvalid, Card, VariantName
from model.engines.network import Images, NetworkPredictor, SharedNetworks


class LiteRTPredictor(NetworkPredictor):
    """Scores one image at a time in each of up to `threads` interpreters."""

    def __init__(
        self,
        card: Card,
        folder: Path,
        threads: int,
        variant: VariantName = "float",
        picture_ms: float | None = None,
        networks: SharedNetworks | None = None,
    ) -> None:
        """Load a variant of the artifact in `folder`; `picture_ms` is its speed, if measured."""
        self.picture_ms = picture_ms
        load = partial(_LiteRTNetwork, card.input_size, threads)
        super().__init__(card, folder, "litert", load, networks, variant)


class _LiteRTNetwork:
    """Up to `threads` interpreters of a file, for images of `input_size` (height, width).

    Measured with MobileNetV2 on two cores: batches gain nothing on a CPU (143 images a CPU second
    one by one, 127 in fours) and cost 7 MB an image, an interpreter costs 20 MB, and two of them
    run 1.9 times as fast as one, because LiteRT releases the GIL while it computes.
    """

    def __init__(self, input_size: tuple[int, int], threads: int, path: Path, width: int) -> None:
        self._create = partial(_Interpreter, path, input_size, width)
        self._blank = np.zeros((*input_size, 3), np.uint8)
        # None stands for an interpreter that is not created yet. Last in, first out: there are
        # never more interpreters than were busy at the same time.
        self._idle: LifoQueue[_Interpreter | None] = LifoQueue()
        for _ in range(threads - 1):
            self._idle.put(None)
        self._idle.put(self._create())

    def warm_up(self) -> None:
        """Create every interpreter and run each once."""
        interpreters = [self._take() for _ in range(self._idle.qsize())]
        for interpreter in interpreters:
            interpreter.run(self._blank)
            self._idle.put(interpreter)

    def run(self, images: Images) -> NDArray[np.float32]:
        """See `Network.run`. Waits while all interpreters are busy."""
        interpreter = self._take()
        try:
            outputs = np.empty((len(images), interpreter.width), np.float32)
            for index, image in enumerate(images):
                outputs[index] = interpreter.run(image)
            return outputs
        finally:
            self._idle.put(interpreter)

    def _take(self) -> "_Interpreter":
        idle = self._idle.get()
        try:
            return idle or self._create()
        except BaseException:
            self._idle.put(None)
            raise


class _Interpreter:
    """Runs the model in `path`, which is memory-mapped, so that all interpreters share one copy."""

    def __init__(self, path: Path, input_size: tuple[int, int], width: int) -> None:
        self.width = width
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (model_input,) = self._interpreter.get_input_details()
        (model_output,) = self._interpreter.get_output_details()
        actual = [(one["dtype"], tuple(one["shape"])) for one in (model_input, model_output)]
        expected = [(np.uint8, (1, *input_size, 3)), (np.float32, (1, width))]
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

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The outputs (width,) for an image."""
        self._interpreter.set_tensor(self._input, image[np.newaxis])
        self._interpreter.invoke()
        outputs: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        return outputs
