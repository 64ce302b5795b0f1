"""The engine of ONNX files: ONNX Runtime, on a GPU if its build for CUDA is installed."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from model.artifact.card import ArtifactInvalid, Card
from model.engines.network import Images, NetworkPredictor, SharedNetworks

CUDA = "CUDAExecutionProvider"
ERRORS_ONLY = 3
# The errors of ONNX Runtime have no base class of their own.
ERRORS: tuple[type[Exception], ...] = (
    *(_state.EPFail, _state.EngineError, _state.Fail, _state.InvalidArgument, _state.InvalidGraph),
    *(_state.InvalidProtobuf, _state.NoModel, _state.NoSuchFile, _state.NotFound),
    *(_state.NotImplemented, _state.RuntimeException),
)


class OnnxPredictor(NetworkPredictor):
    """Scores one image at a time in each of up to `threads` threads, or batches on a GPU."""

    def __init__(
        self,
        card: Card,
        folder: Path,
        threads: int,
        batch_size: int,
        networks: SharedNetworks | None = None,
    ) -> None:
        load = partial(OnnxNetwork, card.input_size, threads, batch_size)
        super().__init__(card, folder, "onnx", load, networks)
        self.batched = getattr(self.network, "on_gpu", False)


class OnnxNetwork:
    """A session that all threads share, for uint8 images of `input_size` (height, width).

    A file with a fixed batch runs batches of that size, filled up with blank images. Measured with
    MobileNetV2 on a CPU, a larger batch gains nothing.
    """

    def __init__(
        self, input_size: tuple[int, int], threads: int, batch_size: int, path: Path, width: int
    ) -> None:
        self._session = open_session(path)
        self.on_gpu = CUDA in self._session.get_providers()
        (model_input,), (model_output,) = self._session.get_inputs(), self._session.get_outputs()
        shapes = [tuple(one.shape[1:]) for one in (model_input, model_output)]
        actual = (model_input.type, shapes[0], model_output.type, shapes[1])
        if actual != ("tensor(uint8)", (*input_size, 3), "tensor(float)", (width,)):
            raise ArtifactInvalid(
                f"{path} takes {actual[:2]} and gives {actual[2:]}, which is not what its card "
                "says: add the original file again with piqueue models add"
            )
        self._name, self._width = model_input.name, width
        self._blank = np.zeros((*input_size, 3), np.uint8)
        batch = model_input.shape[0]
        self._fixed = isinstance(batch, int)
        self._size: int = batch if self._fixed else batch_size if self.on_gpu else 1
        self._slots = threading.BoundedSemaphore(1 if self.on_gpu else threads)

    def warm_up(self) -> None:
        """Run a full batch."""
        self.run([self._blank] * self._size)

    def run(self, images: Images) -> NDArray[np.float32]:
        """See `Network.run`. Waits while `threads` other threads run."""
        outputs = np.empty((len(images), self._width), np.float32)
        for start in range(0, len(images), self._size):
            chosen = list(images[start : start + self._size])
            missing = self._size - len(chosen) if self._fixed else 0
            batch = np.stack([*chosen, *[self._blank] * missing])
            with self._slots:
                outputs[start : start + self._size] = self._run(batch)[: len(chosen)]
        return outputs

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            (outputs,) = self._session.run(None, {self._name: batch})
        except ERRORS as error:
            raise RuntimeError(short(error)) from error
        return np.asarray(outputs)


def open_session(path: Path) -> Any:
    """Load the file in `path`, to be run in the thread that calls, and on a GPU if there is one.

    Raises:
        ArtifactInvalid: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    # The worker runs several pictures at a time, so a session has no threads of its own that
    # could compete with them, or spin while they wait.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    providers: list[Any] = ["CPUExecutionProvider"]
    if CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()
        # The default measures every algorithm for every size of a batch, which delays jobs.
        providers.insert(0, (CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except ERRORS as error:
        raise ArtifactInvalid(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path.name} ({short(error)}): "
            "export it with standard operators and an older opset, such as opset_version=18 of "
            "torch.onnx.export"
        ) from error


def short(error: Exception) -> str:
    """The text of an error of ONNX Runtime in one line, without its code."""
    text = " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
    return text.split(" : ", 2)[-1].rstrip(" .")
