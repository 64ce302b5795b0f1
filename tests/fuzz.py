"""Fuzzes parsers and decoders with inputs that are chosen by the code they reach."""

import argparse
import contextlib
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(
    include=["PIL", "model", "api", "worker", "h11", "python_multipart"]
):
    from model.images.decode import FORMATS, _decoder_of, decode_here
    from model.images.headers import read_requirements
    from model.images.result import ImageRejected
    from tests.test_linear_time import PARSERS

from tests import hostile

SEEDS = 200
REPORT_S = 5
# The limits for one input and for the process; the decoders of a worker have less memory.
TIMEOUT_S, MEMORY_MB = 30, 2000
ADDRESS_SPACE_BYTES = 8_000_000_000
MAX_PIXELS = 4_000_000
SIZE = (224, 224)
# Those that read pictures belong to the other kind of input.
TEXT_PARSERS = [name for name in PARSERS if "header" not in name and name not in hostile.KINDS]


class Decoding:
    """Decodes pictures, of one format only if it is named, and counts them by format.

    A worker does the same, the second half of it in a sandbox, which also ends with MemoryError.
    """

    def __init__(self, only: str | None) -> None:
        self._only = only
        self._counts: Counter[str] = Counter()
        self._next_report_at = time.monotonic() + REPORT_S

    def __call__(self, payload: bytes) -> None:
        """Decode a picture; any result other than pixels or a rejection is a failure."""
        with contextlib.suppress(ImageRejected, MemoryError):
            format_ = _decoder_of(payload)
            if self._only in (None, format_):
                self._count(format_)
                read_requirements(format_, payload, max(SIZE), MAX_PIXELS)
                assert decode_here(payload, SIZE, MAX_PIXELS).pixels.shape == (*SIZE, 3)

    def _count(self, format_: str) -> None:
        self._counts[format_] += 1
        # libFuzzer ends the process without a chance to report then.
        if time.monotonic() > self._next_report_at:
            self._next_report_at += REPORT_S
            print(dict(self._counts), flush=True)  # noqa: T201


def pictures(seed: int, only: str | None) -> Iterator[bytes]:
    """Give damaged pictures, of one format only if it is named."""
    for payload in hostile.mutants(seed, SEEDS if only is None else len(FORMATS) * SEEDS):
        with contextlib.suppress(ImageRejected):
            if only in (None, _decoder_of(payload)):
                yield payload


def parse_or_refuse(data: bytes) -> None:
    """Read what a stranger sends by the parser that the first byte names.

    Any exception other than those by which parsers refuse is a failure.
    """
    if data:
        PARSERS[TEXT_PARSERS[data[0] % len(TEXT_PARSERS)]].read(data[1:])


def requests() -> Iterator[bytes]:
    """Give inputs of all parsers of text."""
    for number, name in enumerate(TEXT_PARSERS):
        for _, make in PARSERS[name].inputs():
            yield bytes((number,)) + make(40)


def main() -> None:
    """Fuzz; on a failure, exit with an error and leave the input as a file."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument(
        "--what",
        choices=("pictures", "requests"),
        default="pictures",
        help="pictures, or what the API and the answers of hosts consist of (%(default)s)",
    )
    parser.add_argument("--format", choices=FORMATS, help="pictures of this format only")
    parser.add_argument("--seconds", type=int, default=60, help="duration (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (%(default)s)")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
    decoding = Decoding(chosen.format)
    is_picture = chosen.what == "pictures"
    with TemporaryDirectory() as folder:
        seeds = pictures(chosen.seed, chosen.format) if is_picture else requests()
        for number, payload in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(payload)
        bounds = {
            "max_total_time": chosen.seconds,
            "seed": chosen.seed,
            "timeout": TIMEOUT_S,
            "rss_limit_mb": MEMORY_MB,
            "print_final_stats": 1,
        }
        options = [f"-{name}={value}" for name, value in bounds.items()]
        run = decoding if is_picture else parse_or_refuse
        atheris.Setup([sys.argv[0], *options, folder], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
