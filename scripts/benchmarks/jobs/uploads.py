"""The gain of concurrent reads and writes of uploads on S3 over sequential ones."""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.benchmarks.support.figures import Figure, alternate, ratios, table
from scripts.local.embedded_redis import EmbeddedRedis
from worker.jobs.ledger.connection import connect
from worker.jobs.record import new_job_id
from worker.jobs.s3 import Folder
from worker.jobs.settings import load_settings
from worker.jobs.storage.s3_blobs import S3Blobs


def uploads(url: str, files: int, file_bytes: int, rounds: int) -> Iterator[Figure]:
    """Write and read `files` under `url` both ways, alternately."""
    payloads = {f"{at}.jpg": at.to_bytes(4) * (file_bytes // 4) for at in range(files)}
    folder = Folder.open(load_settings(), url)
    with TemporaryDirectory(prefix="piqueue-bench-") as data, EmbeddedRedis(Path(data)) as server:
        redis = connect(server.url)
        sequential, concurrent = S3Blobs(folder, redis, 1), S3Blobs(folder, redis)

        def write(blobs: S3Blobs) -> float:
            started = time.perf_counter()
            blobs.put(job_id, payloads, 3600)
            return time.perf_counter() - started

        def read(blobs: S3Blobs) -> float:
            started = time.perf_counter()
            if list(blobs.get(job_id, payloads)) != list(payloads.values()):
                raise RuntimeError("what was read is not what was written")
            return time.perf_counter() - started

        job_id = new_job_id()
        try:
            write(concurrent)  # connects
            for name, measure in (("written", write), ("read", read)):
                pairs = alternate(
                    partial(measure, sequential), partial(measure, concurrent), rounds
                )
                yield Figure.of(
                    f"uploads {name} sequentially / concurrently",
                    "x",
                    ratios(pairs),
                    (">=", 1),
                    f"{files} files of {file_bytes} bytes",
                )
        finally:
            concurrent.erase(job_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="s3://bucket/prefix, on the server of PIQUEUE_S3_ENDPOINT_URL")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(table(list(uploads(given.url, given.files, given.bytes, given.rounds))))
