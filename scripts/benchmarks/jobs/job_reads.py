"""The cost of reading a job with many items, compared with one with few."""

from collections import Counter
from collections.abc import Iterator
from itertools import compress

from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import Figure, alternate, percentile, ratios
from scripts.benchmarks.support.synthetic_jobs import (
    claim_all,
    score_all,
    submit_table,
    write_table,
)
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore

FEW = 10


def job_reads(run: BenchmarkRun) -> Iterator[Figure]:
    """Read two jobs alternately, while both run and when both are done."""
    many = run.scale.scored_rows
    table = run.new_folder("job-reads") / "table.csv"
    with run.stack(workers=0) as stack, Connection(stack.url) as connection:
        store = JobStore(connect(stack.redis_url))
        job_ids = []
        for rows in (many, FEW):
            write_table(table, rows)
            job_ids.append(submit_table(connection, table)["id"])

        def latency_s(job_id: str) -> float:
            connection.get(f"/jobs/{job_id}?results=false")
            return connection.last_s

        claims = claim_all(store)
        counts = Counter(claim.job_id for claim in claims)
        for state in ("running", "done"):
            first_half = [claim.chunk_index < counts[claim.job_id] // 2 for claim in claims]
            score_all(store, compress(claims, first_half) if state == "running" else claims)
            pairs = alternate(
                lambda: latency_s(job_ids[0]), lambda: latency_s(job_ids[1]), run.scale.requests
            )
            few_ms = percentile([few for _, few in pairs], 0.5) * 1000
            yield Figure.of(
                f"GET /jobs/{{id}} while {state}, many items / few",
                "x",
                ratios(pairs),
                ("<=", 1.1),
                f"{many} against {FEW} items, {few_ms:.1f} ms",
            )
