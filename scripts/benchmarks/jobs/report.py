"""The duration and the size of the report of a job, and the memory that the API needs for it."""

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import cycle
from pathlib import Path

from piqueue import Client
from scripts.benchmarks.support.benchmark_run import BenchmarkRun, cpu_s, resident_mb
from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import Figure
from scripts.benchmarks.support.synthetic_jobs import (
    claim_all,
    score_all,
    submit_table,
    synthetic_results,
    write_table,
)
from scripts.local.stack import Stack
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore

FEW = 1000
# As the scores of a softmax over the labels of `imagenet`: a few high ones, the others low.
LABELS = 1000
VECTORS = 64


@dataclass(frozen=True)
class _Reading:
    """What one report took: seconds, seconds of the CPU, and megabytes."""

    taken_s: float
    used_s: float
    size_mb: float
    grown_mb: float


def report(run: BenchmarkRun) -> Iterator[Figure]:
    """Read the reports of a small and of a large job, and of one with a thousand labels.

    The results are synthetic.
    """
    rows, some = run.scale.rows, run.scale.scored_rows
    table = run.new_folder("report") / "table.csv"
    with run.stack(workers=0) as stack, Connection(stack.url, timeout_s=600) as connection:
        store = JobStore(connect(stack.redis_url))

        def read(count: int, *, with_labels: bool = False) -> _Reading:
            write_table(table, count)
            options = {"model": "imagenet"} if with_labels else {}
            job_id = submit_table(connection, table, **options)["id"]
            claims = claim_all(store)
            if with_labels:
                _score_labels(store, claims)
            else:
                score_all(store, claims)
            return _read(stack, job_id)

        read(FEW)  # leads to what every report needs
        of_all = read(rows)
        pair = (read(some, with_labels=True), read(some))
    on = f"{rows} rows"
    yield Figure.of("report of a job", "s", [of_all.taken_s], ("<=", 60), on)
    yield Figure.of("CPU time of the API for it", "s", [of_all.used_s], ("<=", 60), on)
    yield Figure.of("size of the report", "MB", [of_all.size_mb], ("<=", 3), on)
    yield Figure.of("API memory grows meanwhile by", "MB", [of_all.grown_mb], ("<=", 50), on)
    on = f"{some} rows, {LABELS} labels"
    labels = "CPU time of a report of many labels / of four"
    yield Figure.of(labels, "", [pair[0].used_s / pair[1].used_s], ("<=", 6), on)
    yield Figure.of(
        "CPU time of the API for many", "s", [pair[0].used_s], ("<=", some * 60 / 1e6), on
    )
    yield Figure.of("API memory grows for many by", "MB", [pair[0].grown_mb], ("<=", 50), on)


def _read(stack: Stack, job_id: str) -> _Reading:
    assert stack.api_pid
    page = BytesIO()
    before_mb = resident_mb(stack.api_pid)
    _reset_peak(stack.api_pid)
    started, used_s = time.perf_counter(), cpu_s(stack.api_pid)
    with Client(stack.url) as client:
        client.report(job_id, page)
    return _Reading(
        time.perf_counter() - started,
        cpu_s(stack.api_pid) - used_s,
        len(page.getvalue()) / 1e6,
        resident_mb(stack.api_pid, "VmHWM") - before_mb,
    )


def _score_labels(store: JobStore, claims: list[Claim]) -> None:
    rng = random.Random(0)  # noqa: S311
    vectors = cycle([_softmax(rng) for _ in range(VECTORS)])
    for claim in claims:
        results = synthetic_results(claim)
        store.commit(claim, [replace(result, scores=next(vectors)) for result in results])


def _softmax(rng: random.Random) -> tuple[float, ...]:
    weights = [math.exp(rng.gauss(0, 2.2)) for _ in range(LABELS)]
    for at in rng.sample(range(LABELS), 2):
        weights[at] *= math.exp(8)
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def _reset_peak(pid: int) -> None:
    """Let VmHWM of a process begin at the memory that it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
