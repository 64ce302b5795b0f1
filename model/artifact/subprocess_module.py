"""Runs one of our modules in a subprocess, so that none of its memory stays in this process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class ModuleFailed(Exception):
    """A module exited with another code than 0; the message is the last line of its stderr."""


def run_module(module: str, *arguments: str, text: str = "", deadline_s: float) -> str:
    """Return what `python -m module` prints, given `text` as its standard input.

    Raises:
        ModuleFailed: it exited with another code than 0.
        subprocess.TimeoutExpired: it ran for more than `deadline_s`.
    """
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=text,
        text=True,
        capture_output=True,
        cwd=ROOT,
        timeout=deadline_s,
        check=False,
    )
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise ModuleFailed(lines[-1])
    return finished.stdout
