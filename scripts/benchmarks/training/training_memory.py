"""The memory of a training, whose pictures and features are in mapped files."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.figures import Figure
from scripts.local.stack import ROOT

SIDE = 224
# Enough for every part of a training: two fits of each of two folds, with fine-tuning.
_SETTINGS = """\
augmented_copies: 1
base_weights: none
epochs: 1
fine_tune_from_block: 16
folds: 2
head_epochs: 1
int8: false
"""


def training_memory(run: BenchmarkRun) -> Iterator[Figure]:
    """Train on pictures that are made for it, in a process of its own."""
    folder, count = run.new_folder("training"), run.scale.labelled
    _write_pictures(folder, count)
    (folder / "training.yaml").write_text(_SETTINGS)
    paths = {
        "--training_config_path": folder / "training.yaml",
        "--images": folder / "images",
        "--model": folder / "models/parity/1",
        "--runs_path": folder / "runs",
    }
    options = [str(part) for pair in paths.items() for part in pair]
    command = [sys.executable, "-m", "scripts.workshop.train", str(folder / "labels.csv"), *options]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (folder / "log").read_text()[-3000:]
    # Kilobytes, and on macOS bytes.
    peak_mb = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    pixels_mb = count * SIDE * SIDE * 3 / 1e6
    note = f"{count} pictures, which are {pixels_mb:.0f} MB of pixels"
    yield Figure.of("peak memory of a training", "MB", [peak_mb], ("<=", 4000), note)


def _write_pictures(folder: Path, count: int) -> None:
    """Write JPEGs of two brightnesses, and a table with this label."""
    (folder / "images").mkdir()
    random = np.random.default_rng(1)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "bright"])
        for number in range(count):
            bright = number % 2
            blocks = random.integers(40, 140, (8, 8, 3), np.uint8) + 80 * bright
            picture = Image.fromarray(blocks.astype(np.uint8)).resize((SIDE, SIDE))
            picture.save(folder / "images" / f"{number}.jpg")
            rows.writerow([f"{number}.jpg", bright])
