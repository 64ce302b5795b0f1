"""The programs a benchmark runs beside itself: each is gone when it ends."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.local.supervised_process import SupervisedProcess

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 120
RUN_DEADLINE_S = 600


@contextmanager
def serving(log_path: Path, module: str, *arguments: str) -> Iterator[str]:
    """Run a module that prints the port it listens on once it is ready; gives its address."""
    child = SupervisedProcess([sys.executable, "-m", module, *arguments], log_path, cwd=ROOT)
    child.start()
    try:
        port = child.wait_until(lambda: _printed_port(log_path), START_DEADLINE_S, module)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop(grace_s=5)


def output_of(*arguments: str) -> str:
    """Run Python to its end; gives what it printed."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=RUN_DEADLINE_S,
    ).stdout


def resident_mb(pid: int, which: str = "VmRSS") -> float:
    """Give the resident memory of a process in MB, or with "VmHWM" the most it ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024 / 1e6


def cpu_s(pid: int) -> float:
    """Give the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _printed_port(log_path: Path) -> str | None:
    port = re.search(r"^(\d+)$", log_path.read_text(), re.MULTILINE)
    return port and port[1]
