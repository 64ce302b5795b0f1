"""On the PYTHONPATH of a worker, makes LiteRT take 10 ms a picture and no CPU time."""

import sys
import time
from pathlib import Path

if sys.orig_argv[1:3] == ["-m", "worker"]:
    sys.path.insert(0, str(Path.cwd()))
    from model.engines.litert import _Interpreter

    def _score(self: _Interpreter, _image: object) -> tuple[float, ...]:
        time.sleep(0.01)
        return (0.5,) * len(self._card.labels)

    _Interpreter.score = _score  # type: ignore[assignment, method-assign]
