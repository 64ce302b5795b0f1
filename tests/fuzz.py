"""Fuzzes the decoding of pictures with inputs that are chosen by the code they reach."""

import argparse
import contextlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["PIL", "model"]):
    from model.images.decode import decode
    from model.images.result import ImageRejected

from tests import hostile

SEEDS = 200
# The limits for one input and for the process.
TIMEOUT_S, MEMORY_MB = 30, 2000
MAX_PIXELS = 4_000_000


def decode_or_reject(payload: bytes) -> None:
    """Decode a picture; any result other than pixels or a rejection is a failure."""
    with contextlib.suppress(ImageRejected):
        assert decode(payload, max_pixels=MAX_PIXELS).pixels.shape == (224, 224, 3)


def main() -> None:
    """Fuzz; on a failure, exit with an error and leave the input as a file."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="duration (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (%(default)s)")
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        for number, payload in enumerate(hostile.mutants(chosen.seed, SEEDS)):
            (Path(folder) / str(number)).write_bytes(payload)
        bounds = {
            "max_total_time": chosen.seconds,
            "seed": chosen.seed,
            "timeout": TIMEOUT_S,
            "rss_limit_mb": MEMORY_MB,
            "print_final_stats": 1,
        }
        options = [f"-{name}={value}" for name, value in bounds.items()]
        atheris.Setup([sys.argv[0], *options, folder], decode_or_reject)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
