"""The memory that Redis uses for an item, before and after it is scored."""

from collections.abc import Iterator

from redis import Redis

from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import Figure
from scripts.benchmarks.support.synthetic_jobs import (
    claim_all,
    score_all,
    submit_table,
    write_table,
)
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore


def redis_memory(run: BenchmarkRun) -> Iterator[Figure]:
    """Compare all memory of Redis: empty, with a submitted table, with each of its rows scored.

    The results are synthetic, because scoring this many pictures takes an hour.
    """
    rows = run.scale.scored_rows
    table = run.new_folder("redis-memory") / "table.csv"
    write_table(table, rows)
    with run.stack(workers=0) as stack, Connection(stack.url) as connection:
        redis = connect(stack.redis_url)
        connection.get("/jobs")
        empty = _used_bytes(redis)
        submit_table(connection, table)
        submitted = _used_bytes(redis)
        store = JobStore(redis)
        score_all(store, claim_all(store))
        scored = _used_bytes(redis)
    for state, used, bound in (("before", submitted, 200), ("after", scored, 300)):
        per_item = [(used - empty) / rows]
        name = f"all of Redis {state} scoring"
        yield Figure.of(name, "bytes/item", per_item, ("<=", bound), f"{rows} rows")


def _used_bytes(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])
