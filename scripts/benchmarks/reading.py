"""Whether reading a job costs the same for few items as for many."""

from collections.abc import Iterator

from scripts.benchmarks.alternating import in_turn, ratios
from scripts.benchmarks.connection import Connection
from scripts.benchmarks.figures import Figure
from scripts.benchmarks.made_up import CSV_TYPE, score_all, write_table
from scripts.benchmarks.workbench import Workbench
from scripts.benchmarks.workerless import workerless
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore

FEW = 10


def reading(bench: Workbench) -> Iterator[Figure]:
    """Read two jobs in turn, while both run and when both are done."""
    many = bench.scale.scored_rows
    folder = bench.new_folder("reading")
    with workerless(folder) as service, Connection(service.url) as connection:
        store = JobStore(connect(service.redis_url))
        jobs = []
        for rows in (many, FEW):
            write_table(folder / "table.csv", rows)
            with (folder / "table.csv").open("rb") as table:
                jobs.append(connection.send("POST", "/jobs?id_column=sku", table, CSV_TYPE))

        def latency(job_id: str) -> float:
            connection.get(f"/jobs/{job_id}?results=false")
            return connection.last_s

        for state in ("running", "done"):
            for job in jobs:
                chunks = store.job(job["id"]).chunk_count
                half = chunks // 2
                score_all(
                    store, job["id"], range(half) if state == "running" else range(half, chunks)
                )
            pairs = in_turn(
                lambda: latency(jobs[0]["id"]), lambda: latency(jobs[1]["id"]), bench.scale.requests
            )
            few_ms = sorted(few for _, few in pairs)[len(pairs) // 2] * 1000
            yield Figure.of(
                f"GET /jobs/{{id}} while {state}, many items / few",
                "x",
                ratios(pairs),
                ("<=", 1.1),
                f"{many} against {FEW} items, {few_ms:.1f} ms",
            )
