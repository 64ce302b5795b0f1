"""On the PYTHONPATH of a worker, makes LiteRT take 10 ms a picture and no CPU time."""

import sys
import time
from pathlib import Path

if sys.orig_argv[1:3] == ["-m", "worker"]:
    sys.path.insert(0, str(Path.cwd()))
    import numpy as np
    from numpy.typing import NDArray

    from model.engines.litert import _Interpreter

    def _run(self: _Interpreter, _image: object) -> NDArray[np.float32]:
        time.sleep(0.01)
        return np.full(self.width, 0.5, np.float32)

    _Interpreter.run = _run  # type: ignore[assignment, method-assign]
