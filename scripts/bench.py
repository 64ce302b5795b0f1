"""Measures the performance that Piqueue promises, as ratios within one run where possible."""

import argparse
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.benchmarks.jobs.bulk_upload import bulk_upload
from scripts.benchmarks.jobs.folder_upload import folder_upload
from scripts.benchmarks.jobs.job_reads import job_reads
from scripts.benchmarks.jobs.page import page
from scripts.benchmarks.jobs.redis_memory import redis_memory
from scripts.benchmarks.jobs.report import report
from scripts.benchmarks.jobs.similar import similar
from scripts.benchmarks.scoring.batching import batching
from scripts.benchmarks.scoring.fairness import fairness
from scripts.benchmarks.scoring.footprint import footprint
from scripts.benchmarks.scoring.one_picture import one_picture
from scripts.benchmarks.scoring.peer_comparison import peers
from scripts.benchmarks.scoring.throughput import throughput
from scripts.benchmarks.support.benchmark_run import QUICK, BenchmarkRun, Scale
from scripts.benchmarks.support.figures import Figure, table
from scripts.benchmarks.training.teach import teach
from scripts.benchmarks.training.training_memory import training_memory

BENCHMARKS = {
    measure.__name__: measure
    for measure in (
        throughput,
        footprint,
        job_reads,
        bulk_upload,
        folder_upload,
        redis_memory,
        report,
        page,
        one_picture,
        peers,
        fairness,
        batching,
        teach,
        similar,
        training_memory,
    )
}


def options() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    about = f"default: all of {', '.join(BENCHMARKS)}"
    parser.add_argument("names", nargs="*", metavar="BENCHMARK", type=_known, help=about)
    parser.add_argument(
        "--quick", action="store_true", help="run small versions that test the benchmarks"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def _known(name: str) -> str:
    # `choices` would refuse it that no name is given.
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"no {name!r}: choose from {', '.join(BENCHMARKS)}")
    return name


def main() -> int:
    """Print the figures; gives 1 if a bound is missed."""
    given = options().parse_args()
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="piqueue-bench-") as folder:
        run = BenchmarkRun(Path(folder), QUICK if given.quick else Scale())
        if not given.names and not find_spec("litserve"):
            print("peers is left out: install the extra peers", file=sys.stderr)
            del BENCHMARKS["peers"]
        if not given.names and not shutil.which("chromium"):
            print("page is left out: apt-get install chromium chromium-driver", file=sys.stderr)
            del BENCHMARKS["page"]
        for name in given.names or BENCHMARKS:
            print(f"{name} …", file=sys.stderr)
            figures += BENCHMARKS[name](run)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "quick": given.quick}
    rows = [{**asdict(figure), "kept": figure.kept} for figure in figures]
    as_json = json.dumps({"machine": machine, "figures": rows}, indent=2)
    print(as_json)
    if given.json:
        given.json.write_text(as_json + "\n")
    print(table(figures))
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
