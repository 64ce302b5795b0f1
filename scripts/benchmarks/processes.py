"""Subprocesses of a benchmark, and the memory and CPU time of a process."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.local.stack import ROOT
from scripts.local.supervised_process import SupervisedProcess

START_DEADLINE_S = 120


@contextmanager
def serving(log_path: Path, module: str, *arguments: str) -> Iterator[str]:
    """Run a module that prints its port once it is ready, while the block runs; gives its URL."""
    process = SupervisedProcess([sys.executable, "-m", module, *arguments], log_path, cwd=ROOT)
    process.start()
    try:
        port = process.wait_until(
            lambda: re.search(r"^(\d+)$", log_path.read_text(), re.MULTILINE),
            START_DEADLINE_S,
            module,
        )
        yield f"http://127.0.0.1:{port[1]}"
    finally:
        process.stop(grace_s=5)


def resident_mb(pid: int, field: str = "VmRSS") -> float:
    """Read the resident memory of a process in MB, or its peak for the field "VmHWM"."""
    status = Path(f"/proc/{pid}/status").read_text()
    value = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert value
    return int(value[1]) * 1024 / 1e6


def cpu_s(pid: int) -> float:
    """Read the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
