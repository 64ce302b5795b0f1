"""The memory of a training, whose pictures and features are in mapped files."""

import csv
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.figures import Figure
from scripts.local.stack import ROOT

SIDE = 224
SAMPLE_S = 0.1
# One of two trainings has a fourth of the pictures of the other, more than are augmented at a time.
SHARE = 4
# A training with so many must need less than 4 GB.
MOST = 50_000
# Enough for every part of a training: two fits of each of two folds, with fine-tuning. The narrow
# network takes less time; what grows with the pictures are they and their features.
_SETTINGS = """\
augmented_copies: 1
backbone_width: 0.35
base_weights: none
epochs: 1
fine_tune_from_block: 16
folds: 2
head_epochs: 1
int8: false
"""


def training_memory(run: BenchmarkRun) -> Iterator[Figure]:
    """Train on pictures that are made for it, and on some of them, in processes of their own."""
    folder, count = run.new_folder("training"), run.scale.labelled
    rows = _write_training(folder, count)
    some = count // SHARE
    some_mb, all_mb = (_peak_mb(folder, rows[:part]) for part in (some, count))
    # Arrays in memory would make it 1 or more.
    growth = (all_mb - some_mb) / _pixels_mb(count - some)
    note = f"{count} pictures, which are {_pixels_mb(count):.0f} MB of pixels"
    yield Figure.of("peak memory of a training", "MB", [all_mb], ("<=", 2000), note)
    note = f"{some_mb:.0f} MB for {some} pictures, {all_mb:.0f} MB for {count}"
    yield Figure.of("growth of that by pixels added", "", [growth], ("<=", 0.25), note)
    more_mb = max(0, growth) * _pixels_mb(MOST - count)
    name = f"peak memory for {MOST} pictures, by that growth"
    yield Figure.of(name, "MB", [all_mb + more_mb], ("<=", 4000))


def _pixels_mb(count: int) -> float:
    return count * SIDE * SIDE * 3 / 1e6


def _peak_mb(folder: Path, rows: Sequence[tuple[str, int]]) -> float:
    """The peak memory of a training on these rows."""
    name = f"{len(rows)}.csv"
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("name", "bright"), *rows])
    paths = {
        "--training_config_path": folder / "training.yaml",
        "--images": folder / "images",
        "--model": folder / f"models/parity/{len(rows)}",
        "--runs_path": folder / "runs",
    }
    options = [str(part) for pair in paths.items() for part in pair]
    command = [sys.executable, "-m", "scripts.workshop.train", str(folder / name), *options]
    peak_kb = 0
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        while child.poll() is None:
            peak_kb = max(peak_kb, _own_kb(child.pid))
            time.sleep(SAMPLE_S)
    assert child.returncode == 0, (folder / "log").read_text()[-3000:]
    return peak_kb / 1e3


def _own_kb(pid: int) -> int:
    """The memory of a process without mapped files, whose pages the system frees when it needs to.

    Linux only.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0  # none is left at its end


def _write_training(folder: Path, count: int) -> list[tuple[str, int]]:
    """Write settings and JPEGs; the names of these, and whether each is the brighter kind."""
    (folder / "training.yaml").write_text(_SETTINGS)
    (folder / "images").mkdir()
    random = np.random.default_rng(1)
    rows = []
    for number in range(count):
        bright = number % 2
        blocks = random.integers(40, 140, (8, 8, 3), np.uint8) + 80 * bright
        picture = Image.fromarray(blocks.astype(np.uint8)).resize((SIDE, SIDE))
        picture.save(folder / "images" / f"{number}.jpg")
        rows.append((f"{number}.jpg", bright))
    return rows


def main() -> None:
    """Print the memory of a training with as many pictures as the command line says."""
    with tempfile.TemporaryDirectory() as folder:
        rows = _write_training(Path(folder), int(sys.argv[1]))
        started = time.monotonic()
        peak_mb = _peak_mb(Path(folder), rows)
        print(f"{len(rows)} pictures: {peak_mb:.0f} MB, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
