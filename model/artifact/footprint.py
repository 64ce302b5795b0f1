"""What an interpreter of a LiteRT model takes of memory, measured in a process that does no more.

`python -m model.footprint FILE` prints it in bytes.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from model.artifact.card import ArtifactInvalid
from model.artifact.module_process import ModuleFailed, run_module
from model.images.memory_budget import free_at_once

# So coarse that a second measurement says the same.
STEP_BYTES = 100_000
DEADLINE_S = 300


def measure(path: Path) -> int:
    """Give the bytes an interpreter of the model in `path` takes, once it has scored a picture.

    The file is not among them: it is mapped, and all interpreters share it.

    Raises:
        ArtifactInvalid: LiteRT cannot run the file.
    """
    try:
        return int(
            run_module("model.artifact.footprint", str(path.resolve()), deadline_s=DEADLINE_S)
        )
    except ModuleFailed as error:
        raise ArtifactInvalid(f"{path} cannot be run: {error}") from error


def main() -> None:
    """Print by how much this process grows for an interpreter, rounded up."""
    free_at_once()  # as a worker does
    path = sys.argv[1]
    # The first also takes what LiteRT takes once.
    interpreters = [_used_interpreter(path)]
    before = _taken_bytes()
    interpreters.append(_used_interpreter(path))
    steps = -((before - _taken_bytes()) // STEP_BYTES)
    sys.stdout.write(f"{max(1, steps) * STEP_BYTES}\n")


def _used_interpreter(path: str) -> Interpreter:
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (pictures,) = interpreter.get_input_details()
    interpreter.set_tensor(pictures["index"], np.zeros(pictures["shape"], pictures["dtype"]))
    interpreter.invoke()
    return interpreter


def _taken_bytes() -> int:
    """Give what this process has in memory but for what files hold; on macOS, its peak of all."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Exact, as the figures in `status` are not.
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(rollup.split("Anonymous:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
