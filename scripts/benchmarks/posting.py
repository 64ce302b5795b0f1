"""Clients that post one picture a request, several at a time, in a process of their own."""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.client import HTTPConnection
from pathlib import Path
from threading import local
from urllib.parse import urlsplit

from scripts.benchmarks.baseline import Pace
from scripts.benchmarks.connection import multipart
from scripts.benchmarks.pictures import read_pictures


def measure(url: str, payloads: list[bytes], clients: int) -> Pace:
    """Post each payload as `file`, on one connection a client, after a round that warms up."""
    parts = urlsplit(url)
    mine = local()

    def post(payload: bytes) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        body, headers = multipart("file", payload)
        mine.connection.request("POST", parts.path, body, headers)
        answer = mine.connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read().decode()}")
        answer.read()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(post, payloads[: 2 * clients]))
        wall, cpu = time.perf_counter(), time.process_time()
        scored = sum(1 for _ in pool.map(post, payloads))
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return Pace(scored, wall_s, cpu_s, scored / wall_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path, help="made by scripts.benchmarks.pictures")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    payloads = read_pictures(given.folder)[: given.count]
    print(json.dumps(asdict(measure(given.url, payloads, given.clients))))
