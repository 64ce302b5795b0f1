"""A real worker process in which C code holds the GIL, so that no thread of Python runs."""

import os
import subprocess
import sys

# The GIL is held as soon as the heartbeat starts, as by the first picture that a worker claims.
FROZEN = """
import ctypes
import worker.upkeep.heartbeat as heartbeat
from worker.__main__ import main

def start(self, start=heartbeat.Heartbeat.start):
    start(self)
    ctypes.PyDLL(None).sleep(600)

heartbeat.GIL_HELD_S = 3
heartbeat.Heartbeat.start = start
main()
"""


def test_a_worker_whose_gil_is_held_ends_itself(redis_url: str) -> None:
    env = {**os.environ, "PIQUEUE_REDIS_URL": redis_url}
    worker = subprocess.run(
        [sys.executable, "-c", FROZEN], env=env, capture_output=True, text=True, timeout=90
    )
    assert worker.returncode == 1
    assert "Timeout (0:00:03)!" in worker.stderr
    assert 'File "<string>", line 8 in start' in worker.stderr, "the log names what held the GIL"
