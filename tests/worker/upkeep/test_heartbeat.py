"""A real worker process in which C code holds the GIL, so that no thread of Python runs."""

import os
import subprocess
import sys

FROZEN = """
import re, threading
import worker.upkeep.heartbeat as heartbeat
from worker.__main__ import main

heartbeat.GIL_HELD_S = 8
threading.Timer(5, lambda: re.match(rb"(a+)+$", b"a" * 64 + b"b")).start()
main()
"""


def test_a_worker_whose_gil_is_held_ends_itself(redis_url: str) -> None:
    env = {**os.environ, "PIQUEUE_REDIS_URL": redis_url}
    worker = subprocess.run(
        [sys.executable, "-c", FROZEN], env=env, capture_output=True, text=True, timeout=90
    )
    assert worker.returncode == 1
    assert "Timeout (0:00:08)!" in worker.stderr
    assert "re/__init__.py" in worker.stderr, "the log names the code that held the GIL"
