"""Prints the growth of this process in bytes for a predictor with a number of threads."""

import sys
from pathlib import Path

from model.images.memory_budget import return_large_blocks
from model.predictor import load_predictor


def used_bytes() -> int:
    """The memory of this process, without memory-mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def main(folder: Path, threads: int) -> None:
    """Load a predictor with one thread, then measure another one with `threads`."""
    return_large_blocks()
    predictors = [load_predictor(folder, "litert")]
    predictors[0].warm_up()
    before = used_bytes()
    predictors.append(load_predictor(folder, "litert", threads=threads))
    predictors[1].warm_up()
    print(used_bytes() - before)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
