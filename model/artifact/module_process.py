"""Runs a module of ours in a process of its own, so that nothing of it stays here."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class ModuleFailed(Exception):
    """The process ended badly; the text is the last it said."""


def run_module(module: str, *arguments: str, text: str = "", deadline_s: float) -> str:
    """Give what `python -m module` prints, with `text` as its input.

    Raises:
        ModuleFailed: it ended with another code than 0.
    """
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=text,
        text=True,
        capture_output=True,
        cwd=ROOT,
        timeout=deadline_s,
        check=False,
    )
    if ran.returncode:
        raise ModuleFailed((ran.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return ran.stdout
