"""Measures the numbers Piqueue promises, each as a ratio within one run where it can be one."""

import argparse
import os
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.benchmarks.bulk import bulk
from scripts.benchmarks.figures import Figure, as_json, table
from scripts.benchmarks.footprint import footprint
from scripts.benchmarks.keeping import keeping
from scripts.benchmarks.one_picture import one_picture
from scripts.benchmarks.reading import reading
from scripts.benchmarks.throughput import throughput
from scripts.benchmarks.workbench import QUICK, Scale, Workbench

BENCHMARKS = {
    measure.__name__: measure
    for measure in (throughput, footprint, reading, bulk, keeping, one_picture)
}


def main() -> int:
    """Print the figures; gives 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all unless named")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="piqueue-bench-") as folder:
        bench = Workbench(Path(folder), QUICK if given.quick else Scale())
        for name in given.names or BENCHMARKS:
            print(f"{name} …", file=sys.stderr)
            figures += BENCHMARKS[name](bench)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "quick": given.quick}
    as_text = as_json(figures, machine)
    print(as_text)
    if given.json:
        given.json.write_text(as_text + "\n")
    print(table(figures))
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
