"""The memory that a folder of large files needs while it is uploaded and scored.

It needs twice the size of the folder on the disk.
"""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.support.benchmark_run import BenchmarkRun, resident_mb
from scripts.benchmarks.support.figures import Figure
from scripts.benchmarks.support.pictures import make_picture
from scripts.local.stack import ROOT
from worker.jobs.ledger.connection import connect

REDIS_MEMORY = "300mb"
VIDEO_BYTES = 20_000_000
DEADLINE_S = 3600


def folder_upload(run: BenchmarkRun) -> Iterator[Figure]:
    """Submit a folder to a Piqueue as `piqueue serve` runs it, until every photo has its scores."""
    photos = run.new_folder("photos")
    total_bytes = write_photos(photos, run.scale.photos)
    results = run.new_folder("results") / "results.csv"
    with run.stack(redis_memory=REDIS_MEMORY) as stack:
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "piqueue", "submit", str(photos), "-o", str(results)],
            cwd=ROOT,
            env={**os.environ, "PIQUEUE_URL": stack.url},
            check=True,
            timeout=DEADLINE_S,
        )
        taken_s = time.monotonic() - started
        peak_bytes = connect(stack.redis_url).info("memory")["used_memory_peak"]
        assert stack.redis_pid
        assert stack.api_pid
        processes = {"Redis": stack.redis_pid, "API": stack.api_pid}
        resident = {name: resident_mb(pid, "VmHWM") for name, pid in processes.items()}
        left = [*Path(stack.storage_url).glob("*/job_*")]
    with results.open(newline="") as file:
        scored = sum(row["status"] == "succeeded" for row in csv.DictReader(file))
    if scored != run.scale.photos or left:
        raise RuntimeError(
            f"{scored} photos have scores, and the uploads of {len(left)} jobs are left"
        )
    on = f"{scored} photos, {total_bytes / 1e9:.1f} GB, all scored in {taken_s:.0f} s"
    yield Figure.of("Redis memory for a folder", "MB", [peak_bytes / 1e6], ("<=", 300), on)
    for (name, mb), bound in zip(resident.items(), (300, 500), strict=True):
        yield Figure.of(f"{name} resident, at most", "MB", [mb], ("<=", bound), on)


def write_photos(folder: Path, count: int) -> int:
    """Write JPEGs, each with a video behind it as phones do; gives the size of all in bytes."""
    for index in range(count):
        with (folder / f"{index}.jpg").open("wb") as file:
            file.write(make_picture(index))
            file.write(os.urandom(VIDEO_BYTES))
    return sum(path.stat().st_size for path in folder.iterdir())
