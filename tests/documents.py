"""The blocks of the documents, and a shell that runs them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.local.stack import ROOT

# Blocks that no test runs, by document and the beginning of the block, and why not. Where there is
# Docker, scripts/smoke_images builds the images and runs the stack.
NOT_RUN: dict[str, dict[str, str]] = {
    "OPERATIONS.md": {
        "docker run --rm piqueue-worker": "needs Docker",
        "docker compose --profile": "needs Docker",
        "docker compose up": "needs Docker",
        "docker compose run": "needs Docker; docs/using.md and docs/models.md have these commands",
        "docker build": "needs Docker",
        "git pull": "needs Docker",
        "COMPOSE_FILE=": "settings of Compose",
        "kustomize ": "needs kustomize; tests/scripts/test_kubernetes.py writes what it writes",
    },
    "README.md": {
        "scripts/demo": "scripts/test runs this; tests/scripts/local runs the demo",
        "docker build": "needs Docker",
        "client ── POST": "a figure",
    },
    "docs/architecture.md": {"piqueue/ ": "a list of folders"},
    "docs/models.md": {"scenes/5/card.json": "a list of files"},
    "docs/schedules.md": {
        "# dags/nightly_scores.py": "needs Airflow",
        "# nightly_scores.py": "needs Prefect",
    },
    "docs/s3.md": {"{prefix}/": "a list of files"},
    "docs/traces.md": {"export OTEL_": "the address of a collector; tests/test_traces.py runs one"},
}


@dataclass(frozen=True)
class Block:
    """A block of a document: its language, empty if it has none, and its text."""

    language: str
    text: str


def blocks(document: str) -> list[Block]:
    """All blocks of a document, named by its path in the repository."""
    text = (ROOT / document).read_text()
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [Block(*one) for one in found]


def reason_not_run(document: str, block: Block) -> str | None:
    """Why no test runs a block; None if one has to."""
    reasons = NOT_RUN.get(document, {})
    return next((why for start, why in reasons.items() if block.text.startswith(start)), None)


def runnable(document: str) -> list[Block]:
    """The blocks of a document that a test has to run, in their order."""
    return [block for block in blocks(document) if reason_not_run(document, block) is None]


def block_of(document: str, part: str) -> Block:
    """The only block with this text, which a test runs."""
    [block] = [block for block in runnable(document) if part in block.text]
    return block


class Shell:
    """Runs blocks in `folder`, where `piqueue`, `pip` and `python` are those of the tests.

    `pip install` only resolves what it is given.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.env = {**os.environ, **(env or {}), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.env |= {"PYTHONPATH": str(ROOT)}
        (folder / "bin").mkdir()
        programs = {"piqueue": "-m piqueue", "python": "", "pip": "-m pip --no-input"}
        for name, arguments in programs.items():
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            program.chmod(0o755)

    def run(self, block: Block | str, code: int = 0) -> str:
        """Run a block of commands or of Python and return its standard output.

        `code` is the exit code that it must have; if it is not 0, the standard error is returned.
        """
        if isinstance(block, str):
            block = Block("sh", block)
        shell = ["bash", "-euo", "pipefail", "-c"]
        start = [sys.executable, "-c"] if block.language == "python" else shell
        answer = subprocess.run(
            [*start, block.text],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert answer.returncode == code, f"{block.text}\n{answer.stdout}\n{answer.stderr}"
        return answer.stderr if code else answer.stdout
