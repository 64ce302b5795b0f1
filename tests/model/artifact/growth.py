"""Prints the bytes by which this process grows for a predictor of so many threads."""

import sys
from pathlib import Path

from model.images.memory_budget import return_large_blocks
from model.predictor import load_predictor


def taken_bytes() -> int:
    """Give what this process has in memory but for what files hold."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def main(folder: Path, threads: int) -> None:
    """Hold a predictor of one thread, then measure another one of so many."""
    return_large_blocks()
    predictors = [load_predictor(folder, "litert")]
    predictors[0].warm_up()
    before = taken_bytes()
    predictors.append(load_predictor(folder, "litert", threads=threads))
    predictors[1].warm_up()
    print(taken_bytes() - before)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
