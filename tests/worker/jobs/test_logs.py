"""Logs: lines of JSON from our code and from libraries."""

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

LOGGING = """
import logging, structlog
from worker.jobs.logs import configure_logs
configure_logs(as_json=True)
structlog.get_logger().debug("hidden")
structlog.get_logger().info("ours", items=3)
logging.getLogger("theirs").warning("theirs")
try:
    raise ValueError("why")
except ValueError:
    structlog.get_logger().error("failed", exc_info=True)
print("done")
"""


def run(stderr: int | IO[bytes]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOGGING]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True)


def test_our_lines_and_those_of_libraries_have_one_form() -> None:
    ours, theirs, failed = map(json.loads, run(subprocess.PIPE).stderr.splitlines())
    assert ours.items() >= {"event": "ours", "level": "info", "items": 3}.items()
    assert theirs.items() >= {"event": "theirs", "level": "warning"}.items()
    assert ours["timestamp"] <= theirs["timestamp"] <= failed["timestamp"]
    assert failed["exception"].endswith("ValueError: why")


def test_a_full_disk_for_the_log_ends_no_work() -> None:
    with Path("/dev/full").open("wb") as full:
        # Python exits with 120 if it cannot write what is left at its end.
        assert run(full).stdout == "done\n"
