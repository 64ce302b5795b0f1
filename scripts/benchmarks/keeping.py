"""What Redis holds of an item, before it is scored and after."""

from collections.abc import Iterator

from redis import Redis

from scripts.benchmarks.connection import Connection
from scripts.benchmarks.figures import Figure
from scripts.benchmarks.made_up import CSV_TYPE, score_all, write_table
from scripts.benchmarks.workbench import Workbench
from scripts.benchmarks.workerless import workerless
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore


def keeping(bench: Workbench) -> Iterator[Figure]:
    """Compare all that Redis holds: empty, with a table taken in, with each of its rows scored.

    The results are made up, since to score as many takes an hour, but stored as workers do.
    """
    rows = bench.scale.scored_rows
    folder = bench.new_folder("keeping")
    write_table(folder / "table.csv", rows)
    with workerless(folder) as service, Connection(service.url) as connection:
        redis = connect(service.redis_url)
        connection.get("/jobs")
        empty = _used_bytes(redis)
        with (folder / "table.csv").open("rb") as table:
            job = connection.send("POST", "/jobs?id_column=sku", table, CSV_TYPE)
        taken_in = _used_bytes(redis)
        store = JobStore(redis)
        score_all(store, job["id"], range(store.job(job["id"]).chunk_count))
        scored = _used_bytes(redis)
    for state, used, bound in (("before", taken_in, 200), ("after", scored, 300)):
        yield Figure.of(
            f"all of Redis {state} scoring",
            "bytes/item",
            [(used - empty) / rows],
            ("<=", bound),
            f"{rows} rows",
        )


def _used_bytes(redis: Redis) -> int:
    memory = redis.info("memory")
    return int(memory["used_memory"])
