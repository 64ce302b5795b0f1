"""Piqueue beside LitServe and Ray Data: the same model and pictures, in turns."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle
from typing import IO

from scripts.benchmarks.scoring.throughput import bare_scorer, score_urls
from scripts.benchmarks.support.benchmark_run import BenchmarkRun, cpu_s, serving
from scripts.benchmarks.support.connection import Connection, picture_field
from scripts.benchmarks.support.figures import Figure, alternate, percentile, ratios
from scripts.benchmarks.support.pictures import read_pictures
from scripts.local.stack import ROOT

CLIENTS = 16
WARM_UP = 20
PAUSE_S = 0.02


def peers(run: BenchmarkRun) -> Iterator[Figure]:
    """Compare one picture of one client, one picture each of 16 clients, and a job of URLs."""
    if not find_spec("litserve") or not find_spec("ray"):
        raise SystemExit("peers needs the extra peers: README.md has the command")
    payloads = read_pictures(run.pictures)
    log_path = run.new_folder("litserve") / "log"
    with (
        serving(log_path, "scripts.benchmarks.scoring.peers.litserve_server") as url,
        run.stack() as stack,
    ):
        yield _one_client(run, stack.url, url, payloads)
        pids = (*stack.workers, stack.api_pid or 0, stack.redis_pid or 0)
        yield from _many_clients(run, stack.url, pids, url, payloads)
    with run.image_server() as urls, run.stack() as stack, _ray_data(run, urls) as theirs:
        score_urls(stack.url, urls[: len(urls) // 10])
        theirs()
        pairs = alternate(lambda: score_urls(stack.url, urls), theirs, run.scale.rounds)
    ours_s, theirs_s = (percentile(rates, 0.5) for rates in zip(*pairs, strict=True))
    note = f"{ours_s:.0f} against {theirs_s:.0f} pictures/s, {len(urls)} URLs, both started"
    yield Figure.of("job of URLs / Ray Data", "x", ratios(pairs), (">=", 2), note)


def _one_client(run: BenchmarkRun, ours: str, theirs: str, payloads: Sequence[bytes]) -> Figure:
    next_payload = cycle(payloads)
    with Connection(ours) as our_connection, Connection(theirs) as their_connection:

        def post(connection: Connection) -> float:
            time.sleep(PAUSE_S)
            fields = picture_field("file", next(next_payload))
            connection.send("POST", "/scorefile/", fields=fields)
            return connection.last_s

        def in_turn(count: int) -> list[tuple[float, float]]:
            return alternate(lambda: post(our_connection), lambda: post(their_connection), count)

        in_turn(WARM_UP)
        pairs = in_turn(run.scale.requests)
    our_s, their_s = (percentile(times, 0.5) for times in zip(*pairs, strict=True))
    note = f"{our_s * 1000:.1f} against {their_s * 1000:.1f} ms"
    return Figure.of("one picture, median / LitServe", "x", ratios(pairs), ("<=", 1), note)


def _many_clients(
    run: BenchmarkRun, ours: str, pids: Sequence[int], theirs: str, payloads: Sequence[bytes]
) -> Iterator[Figure]:
    posted = payloads[: 4 * run.scale.requests]
    our_cpu_s: list[float] = []

    def service() -> float:
        before_s = sum(map(cpu_s, pids))
        rate = _post_from_many(ours, posted)
        our_cpu_s.append(sum(map(cpu_s, pids)) - before_s)
        return rate

    for url in (ours, theirs):
        _post_from_many(url, posted[: 2 * CLIENTS])
    pairs = alternate(service, lambda: _post_from_many(theirs, posted), run.scale.rounds)
    our_rate, their_rate = (percentile(rates, 0.5) for rates in zip(*pairs, strict=True))
    name = f"one picture each of {CLIENTS} clients / LitServe"
    note = f"{our_rate:.0f} against {their_rate:.0f} pictures/s"
    yield Figure.of(name, "x", ratios(pairs), (">=", 0.95), note)
    score_bare = bare_scorer()
    bare_s = score_bare(posted)[1] / len(posted)
    beside = [1000 * (used_s / len(posted) - bare_s) for used_s in our_cpu_s]
    name = "CPU time a picture beside decoding and inference, 16 clients"
    note = f"{1000 * bare_s:.1f} ms for decoding and inference"
    yield Figure.of(name, "ms", beside, ("<=", 4), note)


def _post_from_many(url: str, payloads: Sequence[bytes]) -> float:
    """Post each payload in a request of its own; gives pictures a second."""

    def post_part(part: Sequence[bytes]) -> None:
        with Connection(url) as connection:
            for payload in part:
                connection.send("POST", "/scorefile/", fields=picture_field("file", payload))

    with ThreadPoolExecutor(CLIENTS) as pool:
        started = time.perf_counter()
        list(pool.map(post_part, [payloads[at::CLIENTS] for at in range(CLIENTS)]))
        return len(payloads) / (time.perf_counter() - started)


@contextmanager
def _ray_data(run: BenchmarkRun, urls: Sequence[str]) -> Iterator[Callable[[], float]]:
    """Run Ray while the block runs; gives what scores all URLs and returns pictures a second."""
    log_path = run.new_folder("ray") / "log"
    command = [sys.executable, "-m", "scripts.benchmarks.scoring.peers.ray_data"]
    with (
        log_path.open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        told, answers = process.stdin, process.stdout

        def ask(line: str) -> str:
            print(line, file=told, flush=True)
            return _next_line(answers, log_path.read_text)

        ask(json.dumps(list(urls)))
        try:
            yield lambda: float(ask("score"))
        finally:
            told.close()
            process.wait(60)


def _next_line(answers: IO[str], log: Callable[[], str]) -> str:
    line = answers.readline()
    if not line:
        raise RuntimeError(f"Ray Data ended: {log()[-2000:]}")
    return line
