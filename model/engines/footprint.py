"""Measures the memory that a thread needs for a LiteRT or ONNX model, in a process of its own.

`python -m model.engines.footprint FILE` prints it in bytes.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact.card import ArtifactInvalid
from model.artifact.subprocess_module import ModuleFailed, run_module
from model.images.memory_budget import return_large_blocks

# Coarse enough that repeated measurements agree.
STEP_BYTES = 100_000
DEADLINE_S = 300


def measure(path: Path) -> int:
    """Return the bytes that an interpreter of the model in `path` uses after scoring a picture.

    A LiteRT file itself is not included: it is memory-mapped and shared by all interpreters. Of an
    ONNX file, the weights are included, although all threads share them.

    Raises:
        ArtifactInvalid: its engine cannot run the file.
    """
    try:
        return int(
            run_module("model.engines.footprint", str(path.resolve()), deadline_s=DEADLINE_S)
        )
    except ModuleFailed as error:
        raise ArtifactInvalid(f"{path} cannot be run ({error}): export the model again") from error


def main() -> None:
    """Print by how many bytes this process grows for an interpreter, rounded up."""
    return_large_blocks()  # as a worker does
    path = Path(sys.argv[1])
    # The first interpreter also allocates what all of them share.
    interpreters = [_used_interpreter(path)]
    before = _used_bytes()
    interpreters.append(_used_interpreter(path))
    steps = -((before - _used_bytes()) // STEP_BYTES)
    sys.stdout.write(f"{max(1, steps) * STEP_BYTES}\n")


def _used_interpreter(path: Path) -> Any:
    if path.suffix == ".onnx":
        from model.engines.onnx import open_session

        session = open_session(path)
        (pictures,) = session.get_inputs()
        batch, *shape = pictures.shape
        shape = [batch if isinstance(batch, int) else 1, *shape]
        session.run(None, {pictures.name: np.zeros(shape, np.uint8)})
        return session
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (pictures,) = interpreter.get_input_details()
    interpreter.set_tensor(pictures["index"], np.zeros(pictures["shape"], pictures["dtype"]))
    interpreter.invoke()
    return interpreter


def _used_bytes() -> int:
    """The memory of this process without mapped files; on macOS, the peak of all its memory."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Exact, unlike /proc/self/status.
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(rollup.split("Anonymous:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
