"""The duration and the size of the report of a job, and the memory that the API needs for it."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from piqueue import Client
from scripts.benchmarks.benchmark_run import BenchmarkRun, cpu_s, resident_mb
from scripts.benchmarks.connection import Connection
from scripts.benchmarks.figures import Figure
from scripts.benchmarks.synthetic_jobs import claim_all, score_all, submit_table, write_table
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore

FEW = 1000


def report(run: BenchmarkRun) -> Iterator[Figure]:
    """Read the reports of a small and of a large job; the results are synthetic."""
    rows = run.scale.rows
    table = run.new_folder("report") / "table.csv"
    with run.stack(workers=0) as stack, Connection(stack.url, timeout_s=600) as connection:
        store = JobStore(connect(stack.redis_url))
        job_ids = []
        for count in (FEW, rows):
            write_table(table, count)
            job_ids.append(submit_table(connection, table)["id"])
            score_all(store, claim_all(store))
        assert stack.api_pid
        with Client(stack.url) as client:
            for job_id in job_ids:
                # The small one leads to what every report needs; then the peak begins anew.
                before_mb = resident_mb(stack.api_pid)
                _reset_peak(stack.api_pid)
                page = BytesIO()
                started, used_s = time.perf_counter(), cpu_s(stack.api_pid)
                client.report(job_id, page)
                taken_s = time.perf_counter() - started
                used_s = cpu_s(stack.api_pid) - used_s
        grown_mb = resident_mb(stack.api_pid, "VmHWM") - before_mb
    on = f"{rows} rows"
    yield Figure.of("report of a job", "s", [taken_s], ("<=", 60), on)
    yield Figure.of("CPU time of the API for it", "s", [used_s], ("<=", 60), on)
    yield Figure.of("size of the report", "MB", [len(page.getvalue()) / 1e6], ("<=", 3), on)
    yield Figure.of("API memory grows meanwhile by", "MB", [grown_mb], ("<=", 50), on)


def _reset_peak(pid: int) -> None:
    """Let VmHWM of a process begin at the memory that it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
